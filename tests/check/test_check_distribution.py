"""Every path follows the target's distribution, and a planted bug is found."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import random
from typing import Any, ClassVar

import pytest
import torch
from machine_threads import THREADS
from power import ALPHA, POWER, found_wrong, power_of, smallest_p

from ssd_lab.check import Extent, check
from ssd_lab.check.checking import CheckReport
from ssd_lab.check.decisions import DRAFTED, EMITTED, KEPT
from ssd_lab.check.evidence import MIN_TESTED
from ssd_lab.decoding.acceptance import Outcome, accept_greedy
from ssd_lab.drafting.draft_worker import DraftWorker
from ssd_lab.errors import ConfigError
from ssd_lab.kernels.torch_kernels import TorchKernels
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.strategies import Context, Draft, SequenceStrategy

VOCAB = 259
SAMPLED = Extent(num_prompts=12, batches=(), temperatures=(1.0,), draws=400)

SAGUARO = {"strategy": "async_tree", "k": 3, "fan_out": {"kind": "adaptive", "budget": 12}, "saguaro_c": 0.5}
SHORT_TREE = {"strategy": "async_tree", "k": 4, "f": 2}
AUTOMATIC = {"strategy": "async_tree", "k": 3, "fallback": {"kind": "auto", "source": "ngram"}}
RANDOM_GUESSES = {"strategy": "async_tree", "k": 3, "fallback": {"kind": "fast", "source": "random"}}


def run_check(tiny_pair: Any, *strategies: Any, extent: Extent = SAMPLED, **fields: Any) -> CheckReport:
    return check(
        strategies, target=tiny_pair.target, draft=tiny_pair.draft, dtype="float32", extent=extent, progress=False,
        draft_link="inline", threads=THREADS, **fields,
    )  # fmt: skip


@pytest.mark.quick("sync_chain 3-")
@pytest.mark.grid(full=3, most=2)
@pytest.mark.parametrize(
    ("strategy", "paths"),
    [
        ({"strategy": "sync_chain", "k": 3}, {"draft"}),
        pytest.param(
            {"strategy": "async_tree", "k": 3, "f": 3, "fallback": "jit"}, {"hit", "jit"}, marks=pytest.mark.full
        ),
        ({"strategy": "async_tree", "k": 3, "f": 3, "fallback": "fast"}, {"hit", "fast", "jit"}),
        pytest.param(SAGUARO, {"hit", "jit"}, marks=pytest.mark.full),
        pytest.param({**SAGUARO, "saguaro_c": 0.0}, {"hit", "jit"}, marks=pytest.mark.full),
        pytest.param(RANDOM_GUESSES, {"hit", "fast", "jit"}, marks=pytest.mark.full),
        pytest.param(AUTOMATIC, {"hit", "fast", "jit"}, marks=pytest.mark.full),
        pytest.param({**SHORT_TREE, "dynamic_lookahead": True}, {"hit", "jit"}, marks=pytest.mark.full),
        pytest.param({"strategy": "sync_chain", "k": 3, "draft_temperature": 0.0}, {"draft"}, marks=pytest.mark.full),
        pytest.param({"strategy": "sync_chain", "k": 4, "dynamic_lookahead": True}, {"draft"}, marks=pytest.mark.full),
        ({"strategy": "prompt_lookup", "k": 3}, {"custom", "none"}),
        pytest.param({"strategy": "suffix_tree", "k": 5}, {"custom", "none"}, marks=pytest.mark.full),
        ({"strategy": "sync_tree", "tree": {"kind": "fixed", "widths": [3, 2, 1]}}, {"tree"}),
        pytest.param(
            {"strategy": "sync_tree", "tree": {"kind": "dynamic", "top_k": 3, "depth": 3, "num_nodes": 8}},
            {"tree"},
            marks=pytest.mark.full,
        ),
        pytest.param(
            {"strategy": "cascade", "second": {"strategy": "sync_chain", "k": 3}},
            {"custom", "draft"},
            marks=pytest.mark.full,
        ),
        pytest.param(
            {"strategy": "cascade", "second": {"strategy": "sync_tree"}}, {"custom", "tree"}, marks=pytest.mark.full
        ),
    ],
    ids=lambda value: " ".join(str(part) for part in value.values()) if isinstance(value, dict) else "",
)
def test_every_path_of_an_exact_strategy_is_not_rejected(tiny_pair: Any, strategy: dict[str, Any], paths: set[str]):
    report = run_check(tiny_pair, strategy)
    assert {path.path for path in report.paths} == paths
    assert found_wrong(report) == set()
    assert all(path.impossible == 0 for path in report.paths)


class Confident(SequenceStrategy):
    """Planted bug: always proposes the same token, and claims that it was drawn by a rare chance."""

    strategy_name: ClassVar[str] = "confident"
    honest: bool = False

    @property
    def lookahead(self) -> int:
        return 1

    def draft(self, context: Context) -> Draft:
        claimed = torch.ones(1, VOCAB)
        if self.honest:
            guess = random.Random(f"{context.params.seed} {len(context.token_ids)}").randrange(VOCAB)
        else:
            guess = 7
            claimed[0, guess] = 1e-4
        return Draft([guess], claimed / claimed.sum())


@pytest.mark.full
def test_a_proposer_that_tells_the_truth_is_not_rejected(tiny_pair: Any):
    assert found_wrong(run_check(tiny_pair, Confident(honest=True))) == set()


class Bigram(SequenceStrategy):
    """What followed the last token so far. lying: its likeliest token, with the soft distribution. A real bias whose
    direction differs from context to context: in the emitted tokens, pooled, it drowns.
    """

    strategy_name: ClassVar[str] = "bigram"
    lying: bool = False

    @property
    def lookahead(self) -> int:
        return 1

    def draft(self, context: Context) -> Draft:
        tokens = context.token_ids
        counts = torch.bincount(
            torch.tensor([two for one, two in itertools.pairwise(tokens) if one == tokens[-1]] or [0]),
            minlength=VOCAB,
        )
        if tokens[-1] not in tokens[:-1]:
            return Draft()
        probs = counts / counts.sum()
        return Draft([int(probs.argmax()) if self.lying else context.draw(probs, 0)], probs[None])


@pytest.mark.full
def test_a_likeliest_token_passed_off_as_drawn_is_found_by_the_law_of_the_drafted_token(tiny_pair: Any):
    lying, honest = (run_check(tiny_pair, Bigram(lying=lying)) for lying in (True, False))
    assert {path.law for path in lying.rejected} == {DRAFTED}
    assert found_wrong(honest) == set()
    drafted = next(path for path in honest.paths if path.law == DRAFTED)
    assert drafted.finds_from is not None and 0.02 < drafted.finds_from < 0.25, "so little would have been found"


@pytest.mark.full
@pytest.mark.parametrize(
    "strategy",
    [{"strategy": "sync_tree", "tree": {"kind": "fixed", "widths": [3, 2]}}, "sync_chain"],
    ids=["tree", "chain"],
)
def test_every_path_with_distributions_has_the_laws_of_what_was_drafted_and_kept(tiny_pair: Any, strategy: Any):
    report = run_check(tiny_pair, strategy)
    assert {path.law for path in report.paths if path.p_values} == {DRAFTED, KEPT, EMITTED}


def greedy_on_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that missed take the target's likeliest tokens, which is convenient and wrong."""
    from ssd_lab.engine import rounds

    right, launch, origins = TorchKernels.accept_sampled, rounds.launch_verify, []

    def remembering(runner: Any, rows: Any, bounds: Any, proposal: Any, options: Any) -> Any:
        origins[:] = proposal.origins
        return launch(runner, rows, bounds, proposal, options)

    def accept(self: Any, probs: Any, draft_tokens: Any, draft_probs: Any, drafted: Any, *uniforms: Any) -> Any:
        sampled = right(self, probs, draft_tokens, draft_probs, drafted, *uniforms)
        greedy = accept_greedy(probs.argmax(-1), draft_tokens, drafted)
        missed = torch.tensor([origin == "jit" for origin in origins])
        return Outcome(
            torch.where(missed, greedy.num_accepted, sampled.num_accepted),
            torch.where(missed, greedy.recovery_token, sampled.recovery_token),
        )

    monkeypatch.setattr(rounds, "launch_verify", remembering)
    monkeypatch.setattr(TorchKernels, "accept_sampled", accept)


def likeliest_passed_off_as_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft's likeliest tokens, with the distribution that they were not drawn from."""
    right = DraftWorker._answer

    def argmax_answers(self: Any, *told: Any) -> Any:
        reply = right(self, *told)
        reply.tokens.copy_(reply.probs.argmax(-1))
        return reply

    monkeypatch.setattr(DraftWorker, "_answer", argmax_answers)


def verified_without_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saguaro: tokens are drawn away from what is cached, and verified as if they were not."""
    right = StepRunner.choose

    def dishonest(self: Any, *inputs: Any, drawing: Any, fan_out: Any, **options: Any) -> Any:
        drawn = right(self, *inputs, drawing=drawing, fan_out=fan_out, **options)
        return dataclasses.replace(drawn, probs=right(self, *inputs, **options).probs)

    monkeypatch.setattr(StepRunner, "choose", dishonest)


def children_always_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the draft drew is accepted."""
    accept_all = "ssd_lab.decoding.tree_acceptance.accepts"
    monkeypatch.setattr(accept_all, lambda p, q, uniforms: torch.ones_like(p, dtype=torch.bool))


def likeliest_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a dynamic tree that keeps what is likely and verifies it as if it had been drawn."""
    from ssd_lab.phases import grow_tree

    def likeliest(probs: Any, uniforms: Any) -> Any:
        tokens = probs.topk(uniforms.shape[-1]).indices
        return tokens, torch.ones_like(tokens, dtype=torch.bool)

    monkeypatch.setattr(grow_tree, "draw_without_replacement", likeliest)


FIXED_TREE = {"strategy": "sync_tree", "tree": {"kind": "fixed", "widths": [4, 2]}}
# what is broken, in which strategy, the paths that are wrong then, and draws for the power that the last test measures
PLANTED: dict[str, tuple[Any, Any, set[str], int]] = {
    "a lie about what it was drawn from": (lambda monkeypatch: None, Confident(), {"custom"}, 400),
    "greedy misses": (greedy_on_misses, {"strategy": "async_tree", "k": 3, "f": 3}, {"jit"}, 400),
    "likeliest for drawn": (likeliest_passed_off_as_drawn, {"strategy": "sync_chain", "k": 3}, {"draft"}, 400),
    "verified without C": (verified_without_c, {**SAGUARO, "saguaro_c": 0.0}, {"hit", "jit"}, 400),
    "children always kept": (children_always_kept, FIXED_TREE, {"tree"}, 400),
    "likeliest children": (likeliest_children, FIXED_TREE, {"tree"}, 400),
}
QUICK = ("children always kept",)


@pytest.mark.grid(most=3)
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in PLANTED]
)
def test_a_planted_bug_is_found_on_the_paths_where_it_is(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, name: str):
    plant, strategy, wrong, draws = PLANTED[name]
    plant(monkeypatch)
    report = run_check(tiny_pair, strategy, extent=dataclasses.replace(SAMPLED, draws=draws))
    assert found_wrong(report, report.alpha) >= wrong
    assert found_wrong(report) <= wrong, "the others are right"
    assert not report.same and "NOT THE SAME" in report.verdict()


@pytest.mark.extended
@pytest.mark.full
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found_whatever_the_seeds(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, name: str):
    """The power of the test above, from seeds of its own."""
    plant, strategy, wrong, draws = PLANTED[name]
    plant(monkeypatch)
    extent = dataclasses.replace(SAMPLED, draws=draws)
    reports = [run_check(tiny_pair, strategy, extent=extent, seed=seed) for seed in (1, 2, 3, 4)]
    for path in wrong:
        assert power_of([smallest_p(report, path) for report in reports], reports[0].alpha) > POWER


def test_a_report_is_json_and_a_table(tiny_pair: Any):
    from rich.console import Console

    small = Extent(num_prompts=4, batches=(1,), max_tokens=4, temperatures=(0.7,), draws=MIN_TESTED)
    report = run_check(tiny_pair, {"strategy": "sync_chain", "k": 2}, extent=small)
    report.alpha = ALPHA
    data = json.loads(json.dumps(report.as_dict()))
    assert data["same"] is True
    assert data["paths"][0]["path"] == "draft"
    assert data["paths"][0]["enough"] is True
    console = Console(width=120, file=io.StringIO())
    with console.capture() as shown:
        console.print(report)
    assert "NO DIFFERENCE FOUND" in shown.get()
    assert "Would find with 95%: one differing token in " in " ".join(shown.get().split())


def test_temperature_zero_has_no_distribution(tiny_pair: Any):
    with pytest.raises(ConfigError, match="temperatures over 0"):
        run_check(tiny_pair, "sync_chain", extent=Extent(num_prompts=2, batches=(), temperatures=(0.0,)))


def test_ctrl_c_keeps_what_is_known(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssd_lab.check.cells.Setting._wave", interrupt)
    extent = Extent(num_prompts=2, batches=(1,), max_tokens=4, temperatures=(1.0,))
    report = run_check(tiny_pair, {"strategy": "sync_chain", "k": 2}, extent=extent)
    assert report.interrupted
    assert len(report.greedy) == 1
    assert "so far (1 of 2 cells)" in report.verdict()
