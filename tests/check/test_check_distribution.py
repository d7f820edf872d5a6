"""Every path follows the target's distribution, and a planted bug is found."""

from __future__ import annotations

import dataclasses
import io
import json
import random
from typing import Any, ClassVar

import pytest
import torch

from ssd_lab.check import Extent, check
from ssd_lab.check.checking import CheckReport
from ssd_lab.check.distribution import MIN_TESTED
from ssd_lab.decoding.acceptance import Outcome, accept_greedy
from ssd_lab.engine.draft_worker import DraftWorker
from ssd_lab.errors import ConfigError
from ssd_lab.kernels.torch_kernels import TorchKernels
from ssd_lab.strategies import Context, Draft, SequenceStrategy

VOCAB = 259
SAMPLED = Extent(num_prompts=12, batches=(), temperatures=(1.0,), draws=600)

SAGUARO = {"strategy": "async_tree", "k": 3, "fan_out": {"kind": "adaptive", "budget": 12}, "saguaro_c": 0.5}


def run_check(tiny_pair: Any, *strategies: Any, extent: Extent = SAMPLED, **fields: Any) -> CheckReport:
    return check(
        strategies, target=tiny_pair.target, draft=tiny_pair.draft, dtype="float32", extent=extent, progress=False,
        draft_link="inline", threads=1, **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "paths"),
    [
        ({"strategy": "sync_chain", "k": 3}, {"draft"}),
        ({"strategy": "async_tree", "k": 3, "f": 3, "fallback": "jit"}, {"hit", "jit"}),
        ({"strategy": "async_tree", "k": 3, "f": 3, "fallback": "fast"}, {"hit", "fast", "jit"}),
        (SAGUARO, {"hit", "jit"}),
        ({**SAGUARO, "saguaro_c": 0.0}, {"hit", "jit"}),
        ({"strategy": "async_tree", "k": 3, "fallback": {"kind": "fast", "source": "random"}}, {"hit", "fast", "jit"}),
        ({"strategy": "async_tree", "k": 3, "fallback": {"kind": "auto", "source": "ngram"}}, {"hit", "fast", "jit"}),
        ({"strategy": "async_tree", "k": 4, "f": 2, "dynamic_lookahead": True}, {"hit", "jit"}),
        ({"strategy": "sync_chain", "k": 3, "draft_temperature": 0.0}, {"draft"}),
        ({"strategy": "sync_chain", "k": 4, "dynamic_lookahead": True}, {"draft"}),
        ({"strategy": "prompt_lookup", "k": 3}, {"custom", "none"}),
        ({"strategy": "suffix_tree", "k": 5}, {"custom", "none"}),
        ({"strategy": "sync_tree", "tree": {"kind": "fixed", "widths": [3, 2, 1]}}, {"tree"}),
        ({"strategy": "sync_tree", "tree": {"kind": "dynamic", "top_k": 3, "depth": 3, "num_nodes": 8}}, {"tree"}),
        ({"strategy": "cascade", "second": {"strategy": "sync_chain", "k": 3}}, {"custom", "draft"}),
        ({"strategy": "cascade", "second": {"strategy": "sync_tree"}}, {"custom", "tree"}),
    ],
    ids=lambda value: " ".join(str(part) for part in value.values()) if isinstance(value, dict) else "",
)
def test_every_path_of_an_exact_strategy_is_not_rejected(tiny_pair: Any, strategy: dict[str, Any], paths: set[str]):
    report = run_check(tiny_pair, strategy)
    assert {path.path for path in report.paths} == paths
    assert report.rejected == []
    assert all(path.impossible == 0 for path in report.paths)
    assert report.same


class Confident(SequenceStrategy):
    """Planted bug: always proposes the same token, and claims to have drawn it from all tokens alike."""

    strategy_name: ClassVar[str] = "confident"
    honest: bool = False

    @property
    def lookahead(self) -> int:
        return 1

    def draft(self, context: Context) -> Draft:
        guess = 7
        if self.honest:
            guess = random.Random(f"{context.params.seed} {len(context.token_ids)}").randrange(VOCAB)
        return Draft([guess], torch.full((1, VOCAB), 1 / VOCAB))


def test_a_proposer_that_lies_about_its_distribution_is_rejected(tiny_pair: Any):
    more = dataclasses.replace(SAMPLED, draws=2500)
    assert [path.path for path in run_check(tiny_pair, Confident(), extent=more).rejected] == ["custom"]
    assert run_check(tiny_pair, Confident(honest=True), extent=more).same


def test_greedy_acceptance_on_misses_is_rejected_and_the_hits_are_not(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    """Planted bug: rows that missed take the target's likeliest tokens, which is convenient and wrong."""
    from ssd_lab.engine import engine

    right, launch, origins = TorchKernels.accept_sampled, engine.launch_verify, []

    def remembering(runner: Any, rows: Any, proposal: Any, options: Any) -> Any:
        origins[:] = proposal.origins
        return launch(runner, rows, proposal, options)

    def greedy_on_misses(
        self: Any, probs: Any, draft_tokens: Any, draft_probs: Any, drafted: Any, *uniforms: Any
    ) -> Any:
        sampled = right(self, probs, draft_tokens, draft_probs, drafted, *uniforms)
        greedy = accept_greedy(probs.argmax(-1), draft_tokens, drafted)
        missed = torch.tensor([origin == "jit" for origin in origins])
        return Outcome(
            torch.where(missed, greedy.num_accepted, sampled.num_accepted),
            torch.where(missed, greedy.recovery_token, sampled.recovery_token),
        )

    monkeypatch.setattr(engine, "launch_verify", remembering)
    monkeypatch.setattr(TorchKernels, "accept_sampled", greedy_on_misses)
    report = run_check(tiny_pair, {"strategy": "async_tree", "k": 3, "f": 3})
    assert [path.path for path in report.rejected] == ["jit"]
    assert not report.same
    assert "1 of 2 paths rejected" in report.verdict()


def test_likeliest_tokens_passed_off_as_drawn_are_rejected(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    """Planted bug: the draft's likeliest tokens, with the distribution that they were not drawn from."""
    right = DraftWorker._answer

    def argmax_answers(self: Any, *told: Any) -> Any:
        reply = right(self, *told)
        reply.tokens.copy_(reply.probs.argmax(-1))
        return reply

    monkeypatch.setattr(DraftWorker, "_answer", argmax_answers)
    report = run_check(tiny_pair, {"strategy": "sync_chain", "k": 3})
    assert [path.path for path in report.rejected] == ["draft"]


def test_saguaro_sampling_verified_with_the_plain_distribution_is_rejected(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch
):
    """Planted bug: tokens are drawn away from what is cached, and verified as if they were not."""
    from ssd_lab.engine.phases import draft_chain, draft_tree
    from ssd_lab.engine.phases.drawing import PLAIN

    right = draft_chain.choose

    def dishonest(*inputs: Any, drawing: Any, fan_out: Any, **options: Any) -> Any:
        drawn = right(*inputs, drawing=drawing, fan_out=fan_out, **options)
        claimed = right(*inputs, drawing=PLAIN, **options)
        return dataclasses.replace(drawn, probs=claimed.probs)

    for module in (draft_chain, draft_tree):
        monkeypatch.setattr(module, "choose", dishonest)
    report = run_check(tiny_pair, {**SAGUARO, "saguaro_c": 0.2})
    assert [path.path for path in report.rejected] == ["hit", "jit"]


FIXED_TREE = {"strategy": "sync_tree", "tree": {"kind": "fixed", "widths": [4, 2]}}


def test_first_children_that_are_always_kept_are_rejected(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    """Planted bug: whatever the draft drew is accepted."""
    accept_all = "ssd_lab.decoding.tree_acceptance.accepts"
    monkeypatch.setattr(accept_all, lambda p, q, uniforms: torch.ones_like(p, dtype=torch.bool))
    assert [path.path for path in run_check(tiny_pair, FIXED_TREE).rejected] == ["tree"]


def test_likeliest_children_passed_off_as_drawn_are_rejected(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    """Planted bug: as a dynamic tree that keeps what is likely and verifies it as if it had been drawn."""
    from ssd_lab.engine.phases import grow_tree

    def likeliest(probs: Any, uniforms: Any) -> Any:
        tokens = probs.topk(uniforms.shape[-1]).indices
        return tokens, torch.ones_like(tokens, dtype=torch.bool)

    monkeypatch.setattr(grow_tree, "draw_without_replacement", likeliest)
    assert [path.path for path in run_check(tiny_pair, FIXED_TREE).rejected] == ["tree"]


def test_a_report_is_json_and_a_table(tiny_pair: Any):
    from rich.console import Console

    small = Extent(num_prompts=4, batches=(1,), max_tokens=4, temperatures=(0.7,), draws=MIN_TESTED)
    report = run_check(tiny_pair, {"strategy": "sync_chain", "k": 2}, extent=small)
    data = json.loads(json.dumps(report.as_dict()))
    assert data["same"] is True
    assert data["paths"][0]["path"] == "draft"
    assert data["paths"][0]["enough"] is True
    console = Console(width=120, file=io.StringIO())
    with console.capture() as shown:
        console.print(report)
    assert "SAME" in shown.get()


def test_temperature_zero_has_no_distribution(tiny_pair: Any):
    with pytest.raises(ConfigError, match="temperatures over 0"):
        run_check(tiny_pair, "sync_chain", extent=Extent(num_prompts=2, batches=(), temperatures=(0.0,)))


def test_ctrl_c_keeps_what_is_known(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssd_lab.check.distribution.PathSampler.wave", interrupt)
    extent = Extent(num_prompts=2, batches=(1,), max_tokens=4, temperatures=(1.0,))
    report = run_check(tiny_pair, {"strategy": "sync_chain", "k": 2}, extent=extent)
    assert report.interrupted
    assert len(report.greedy) == 1
    assert "so far (interrupted)" in report.verdict()
