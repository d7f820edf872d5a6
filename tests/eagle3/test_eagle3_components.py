"""What a head shares with every asynchronous draft: Saguaro's C, fallbacks, schedules, lookahead, being a part."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from eagle3_cases import COMPONENTS, PROMPTS, TREES, autoregressive, eagle, params
from power import POWER, found_wrong, power_of, smallest_p

from ssd_lab import LLM, SamplingParams, demo
from ssd_lab.check import Extent, check
from ssd_lab.check.checking import CheckReport
from ssd_lab.drafting.lookahead_control import LookaheadControl
from ssd_lab.errors import ConfigError
from ssd_lab.rounds.drafted import Drafted
from ssd_lab.rounds.drawing import Drawing
from ssd_lab.rounds.head_runner import HeadRunner
from ssd_lab.strategies import registry
from ssd_lab.strategies.cascade import Cascade
from ssd_lab.trace.records import SequenceRound

LENGTH = 24


@pytest.fixture(scope="module")
def expected(counting: Any) -> list[list[int]]:
    return autoregressive(counting.target, length=LENGTH)


def rounds_of(result: Any) -> list[SequenceRound]:
    return [row for record in result.trace.rounds for row in record.sequences]


@pytest.mark.quick("auto-4")
@pytest.mark.grid(one_of=3)
@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.full), 4])
@pytest.mark.parametrize("name", COMPONENTS)
def test_greedy_text_is_the_targets_and_drafts_are_the_heads(
    counting: Any, expected: list[list[int]], name: str, batch: int
) -> None:
    with eagle(counting.target, counting.part, name, max_batch=batch) as llm:
        result = llm.run(PROMPTS, params(length=LENGTH))
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
    assert [output.token_ids for output in result.outputs] == expected
    counts = counting.twin(counting.part).check(result, 0.0)
    assert counts["none"] == 1 and result.metrics.tokens_per_round > 1.4
    if name in ("n-gram", "random"):
        assert counts["fast"] > 3
    if name == "auto":
        assert counts["fast"] and counts["jit"]


@pytest.mark.full
@pytest.mark.parametrize("name", ["n-gram", "random", "C"])
def test_sampled_text_depends_on_the_seed_and_not_on_the_batch(counting: Any, name: str) -> None:
    texts = []
    for batch in (1, 6):
        with eagle(counting.target, counting.part, name, max_batch=batch, block_size=4) as llm:
            texts.append([output.token_ids for output in llm.generate(PROMPTS, params(1.0, length=LENGTH, top_p=0.9))])
    assert texts[0] == texts[1]


def distribution(counting: Any, name: str, *, seed: int = 0, **fields: Any) -> CheckReport:
    extent = Extent(num_prompts=len(PROMPTS), batches=(), temperatures=(1.0,), draws=400)
    strategy = {"strategy": "eagle3", "head": counting.part, **COMPONENTS[name], **fields}
    return check(
        [strategy], prompts=PROMPTS, target=counting.target, draft=None, dtype="float32", extent=extent,
        progress=False, draft_link="inline", threads=1, seed=seed,
    )  # fmt: skip


@pytest.mark.quick(full=["n-gram-paths1"])
@pytest.mark.grid(full=3)
@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("C", {"hit", "jit"}),
        pytest.param("n-gram", {"hit", "fast", "jit"}, marks=pytest.mark.full),
        pytest.param("random", {"hit", "fast", "jit"}, marks=pytest.mark.full),
        pytest.param("async dynamic", {"hit", "jit"}, marks=pytest.mark.full),
        ("sync dynamic", {"draft"}),
    ],
)
def test_sampled_text_follows_the_target(counting: Any, name: str, paths: set[str]) -> None:
    report = distribution(counting, name)
    assert {path.path for path in report.paths} == paths | {"none"}
    assert found_wrong(report) == set() and all(path.impossible == 0 for path in report.paths)


def verified_without_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: tokens are drawn with C, and the distribution without it is handed to verification."""
    original = HeadRunner.choose

    def choose(
        self: HeadRunner, normed: Any, sampling: Any, uniforms: Any, *, drawing: Drawing, **given: Any
    ) -> Drafted:
        made = original(self, normed, sampling, uniforms, drawing=drawing, **given)
        plain = original(self, normed, sampling, uniforms, drawing=Drawing(record=drawing.record))
        return Drafted(made.tokens, plain.probs, made.token_probs)

    monkeypatch.setattr(HeadRunner, "choose", choose)


@pytest.mark.full
def test_a_modified_draft_verified_as_a_plain_one_is_rejected(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At C = 0, where every draft token is another than the head's likeliest ones: whatever the head has learned here,
    the fault is large.
    """
    verified_without_c(monkeypatch)
    report = distribution(counting, "C", saguaro_c=0.0)
    assert "hit" in found_wrong(report, report.alpha)


@pytest.mark.extended
@pytest.mark.full
def test_a_modified_draft_is_rejected_whatever_the_seeds(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power of the test above."""
    verified_without_c(monkeypatch)
    reports = [distribution(counting, "C", saguaro_c=0.0, seed=seed) for seed in (1, 2, 3, 4)]
    assert power_of([smallest_p(report, "hit") for report in reports], reports[0].alpha) > POWER


def test_c_scales_down_what_is_cached_and_that_is_what_is_recorded(counting: Any) -> None:
    """Against the definition: the head's F likeliest tokens at each place times C, made to sum to 1 again."""
    coefficient, fan_out = COMPONENTS["C"]["saguaro_c"], COMPONENTS["C"]["f"]
    twin = counting.twin(counting.part)
    with eagle(counting.target, counting.part, "C", max_batch=4) as llm:
        result = llm.run(PROMPTS, params(1.0, length=LENGTH))
    checked = 0
    for output in result.outputs:
        whole = [*output.prompt_ids, *output.token_ids]
        for row in (row for row in rounds_of(result) if row.request_id == output.request_id and row.origin == "jit"):
            probs = torch.softmax(twin.logits(whole[: row.position], row.position - 1, row.draft_tokens), -1)
            likeliest = probs.topk(fan_out).indices
            scaled = probs.scatter(-1, likeliest, coefficient * probs.gather(-1, likeliest))
            scaled /= scaled.sum(-1, keepdim=True)
            wanted = scaled.gather(-1, torch.tensor(row.draft_tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(row.draft_probs), wanted, atol=1e-3, rtol=0)
            checked += 1
    assert checked > 5


@pytest.mark.full
@pytest.mark.skipif(not demo.EAGLE3.is_dir(), reason="no head is bundled")
def test_c_trades_acceptance_for_hits() -> None:
    prompts = demo.canned_prompts()[:8]
    each = [SamplingParams(max_tokens=48, temperature=1.0, seed=seed, ignore_eos=True) for seed in range(8)]
    seen = []
    for coefficient in (1.0, 0.2):
        options: dict[str, Any] = {"progress": False, "threads": 1, "max_batch": 8, "dtype": "float32"}
        with LLM(str(demo.TARGET), None, "eagle3", mode="async", k=4, f=3, saguaro_c=coefficient, **options) as llm:
            seen.append(llm.run(prompts, each).metrics)
    assert seen[1].cache_hit_rate > seen[0].cache_hit_rate + 0.03
    assert seen[1].acceptance_rate < seen[0].acceptance_rate - 0.03


@pytest.mark.parametrize("name", ["sync dynamic", "async dynamic"])
def test_the_lookahead_changes_while_running(
    counting: Any, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever it is from round to round; what decides hears of each round's time and confidence."""
    heard: list[Any] = []
    turns = iter(range(10_000))
    monkeypatch.setattr(LookaheadControl, "choose", lambda self: 1 + next(turns) % self._most)
    monkeypatch.setattr(LookaheadControl, "observe", lambda self, *given, **named: heard.append((given, named)))
    with eagle(counting.target, counting.part, name, max_batch=3) as llm:
        result = llm.run(PROMPTS, params(length=LENGTH))
    assert [output.token_ids for output in result.outputs] == expected
    counting.twin(counting.part).check(result, 0.0)
    lengths = {len(row.draft_tokens) for row in rounds_of(result) if row.origin != "none"}
    assert lengths == set(range(1, COMPONENTS[name]["k"] + 1))
    rounds = len(result.trace.rounds)
    assert rounds - 4 <= len(heard) < rounds  # the first has none before it, and some had no draft
    for (_, confidences, accepted), times in heard:
        assert all(0 <= one <= len(own) for own, one in zip(confidences, accepted, strict=True))
        assert times["verify_s"] > 0 and times["draft_s"] >= 0


PARTS = {
    "sync": {"mode": "sync", "k": 3},
    "async": {"mode": "async", "k": 3, "f": 2},
    "tree": TREES["widths"],
}


@pytest.mark.full
@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("part", PARTS)
def test_behind_another_strategy_the_head_misses_nothing(
    counting: Any, expected: list[list[int]], part: str, batch: int
) -> None:
    """Rounds that an n-gram drafted (longer ones than the head's own) show the head their features too."""
    second = {"strategy": "eagle3", "head": counting.part, **PARTS[part]}
    cascade = Cascade(first={"strategy": "suffix_tree", "k": 9}, second=second, least=2)
    options: dict[str, Any] = {"progress": False, "threads": 1, "num_blocks": 400, "draft_link": "inline"}
    with LLM(counting.target, counting.target, cascade, max_batch=batch, **options) as llm:
        for _ in range(2):  # the second time over shared blocks
            result = llm.run(PROMPTS, params(length=LENGTH))
            assert [output.token_ids for output in result.outputs] == expected
            counts = counting.twin(counting.part).check(result, 0.0)
            assert counts["custom"] > 3 and counts[{"sync": "draft", "async": "jit", "tree": "tree"}[part]] > 5
    if part == "async":
        assert counts["hit"] > 3 and result.metrics.predicted_cache_hit_rate is not None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "sync", "saguaro_c": 0.5}, "saguaro_c belongs to mode='async', and mode is 'sync'"),
        ({"mode": "sync", "f": 2, "fallback": "auto"}, "f, fallback belong to mode='async'.*allowed here: k, "),
        ({"mode": "async", **TREES["widths"]}, "take mode='sync' for a tree"),
        ({"k": 3, **TREES["widths"]}, "k says how a chain is drafted, and a tree was given"),
        ({"dynamic_lookahead": True, **TREES["dynamic"]}, "dynamic_lookahead says how a chain"),
        ({"draws": "top"}, "add tree="),
        ({**TREES["dynamic"], "draws": "without_replacement"}, "take draws='top'"),
        (
            {"mode": "async", "k": 1, "dynamic_lookahead": True, "fan_out": {"kind": "explicit", "hit": [1, 2]}},
            "explicit fan-out lists fit one k",
        ),
    ],
)
def test_what_means_nothing_is_refused_with_what_is_allowed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.config("eagle3", fields)


@pytest.mark.parametrize("fields", [{}, TREES["widths"], TREES["dynamic"], *COMPONENTS.values()])
def test_fields_survive_json_alone_and_as_a_part(fields: dict[str, Any]) -> None:
    made = registry.config("eagle3", fields)
    assert registry.config("eagle3", json.loads(made.model_dump_json())) == made
    cascade = Cascade(second={"strategy": "eagle3", **fields})
    assert Cascade.model_validate_json(cascade.model_dump_json()) == cascade
    assert all(field.get("description") for field in type(made).model_json_schema()["properties"].values())
