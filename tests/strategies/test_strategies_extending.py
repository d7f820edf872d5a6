"""Ideas of one's own in few lines: what a context holds, sparse drafts, wrappers, components by registration."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pytest
import torch
from typer.testing import CliRunner

import ssd_lab
from ssd_lab.check import Extent, check
from ssd_lab.check.configurations import configurations
from ssd_lab.cli.main import app
from ssd_lab.decoding.topology import Topology, from_widths
from ssd_lab.errors import ConfigError, ProposerError
from ssd_lab.learning.fallback_choice import FixedChoice
from ssd_lab.strategies import Context, Draft, FallbackConfig, Schedule, SequenceStrategy, TreeShape, WrapperStrategy
from ssd_lab.strategies.components.fallback import FALLBACKS
from ssd_lab.strategies.components.fan_out import SCHEDULES
from ssd_lab.strategies.components.tree_shapes import TREES
from ssd_lab.strategies.registry import registry


@pytest.fixture
def registered() -> Iterator[None]:
    """The components below, for one test."""
    SCHEDULES.register(Falling)
    FALLBACKS.register(Never)
    TREES.register(Fork)
    yield
    for kinds in (SCHEDULES, FALLBACKS, TREES):
        kinds._classes.clear()


class Falling(Schedule):
    kind: Literal["falling"] = "falling"
    first: int = 3

    def after_hit(self, k: int) -> tuple[int, ...]:
        return tuple(max(1, self.first - a) for a in range(k + 1))


class Never(FallbackConfig):
    kind: Literal["never"] = "never"

    def chooser(self) -> FixedChoice:
        return FixedChoice("fast")


class Fork(TreeShape):
    kind: Literal["fork"] = "fork"

    @property
    def topology(self) -> Topology:
        return from_widths((2, 1))


def run(tiny_pair: Any, strategy: Any, **options: Any) -> Any:
    return ssd_lab.run(
        ["Hello there", "Why?"], strategy=strategy, target=tiny_pair.target, draft=tiny_pair.draft, threads=1,
        **{"max_tokens": 24, "ignore_eos": True, "progress": False, "draft_link": "thread", **options},
    )  # fmt: skip


def texts(result: Any) -> list[list[int]]:
    return [output.token_ids for output in result.outputs]


class Curious(SequenceStrategy):
    """Drafts one token and looks at everything it is shown."""

    strategy_name: ClassVar[str] = "curious"

    @property
    def lookahead(self) -> int:
        return 2

    def draft(self, context: Context) -> list[int]:
        seen.append(context)
        return [7, 7]


seen: list[Context] = []


@pytest.mark.parametrize("record", [True, False])
def test_a_context_knows_the_models_and_how_the_last_round_ended(tiny_pair: Any, record: bool):
    seen.clear()
    result = run(tiny_pair, Curious(), record=record)
    first, *later = [context for context in seen if context.request_id == result.outputs[0].request_id]
    assert first.last is None
    assert (first.vocab_size, first.device) == (259, torch.device("cpu"))
    assert first.tokenizer is not None and first.tokenizer.decode(first.tokenizer.encode("Why?")) == "Why?"
    if not record:
        assert all(context.last is not None and context.last.target_probs is None for context in later)
        return
    rows = [row for row in result.trace.to_rows() if row["request_id"] == first.request_id]
    for context, row in zip(later, rows, strict=False):
        assert context.last is not None
        assert (context.last.drafted, context.last.accepted) == (row["num_drafted"], row["num_accepted"])
        assert context.last.target_probs == pytest.approx(row["target_probs"])


class Sparse(SequenceStrategy):
    """What followed the last token so far, by how often."""

    strategy_name: ClassVar[str] = "sparse"
    law: dict[int, float] | None = None

    @property
    def lookahead(self) -> int:
        return 1

    def draft(self, context: Context) -> Draft:
        law = self.law or {context.token_ids[-1]: 0.75, context.token_ids[0]: 0.25}
        if len(law) == 1 and self.law is None:
            law = {context.token_ids[0]: 1.0}
        return Draft([context.draw(law, 0) if self.law is None else 5], [law])


@pytest.mark.full
def test_a_sparse_draft_is_exact_and_recorded_with_its_probability(tiny_pair: Any):
    extent = Extent(num_prompts=6, batches=(), temperatures=(1.0,), draws=600)
    report = check(
        [Sparse()], target=tiny_pair.target, draft=tiny_pair.draft, dtype="float32", extent=extent, progress=False,
        threads=1,
    )  # fmt: skip
    report.alpha = 1e-9
    assert report.same, report.verdict()
    drafted = run(tiny_pair, Sparse(), temperature=1.0).trace.to_rows()
    assert {prob for row in drafted for prob in row["draft_probs"]} <= {0.25, 0.75, 1.0}


@pytest.mark.parametrize(
    ("law", "said"),
    [({5: 0.5}, "do not sum to 1"), ({5: -1.0, 6: 2.0}, "negative"), ({900: 1.0}, "token ids are ints from 0 to 258")],
)
def test_a_sparse_draft_that_is_none_is_refused_in_words(tiny_pair: Any, law: dict[int, float], said: str):
    with pytest.raises(ProposerError, match=said):
        run(tiny_pair, Sparse(law=law))


class Paused(WrapperStrategy):
    """Pauses for a round after low acceptance."""

    strategy_name: ClassVar[str] = "paused"

    def drafts(self, context: Context) -> bool:
        return context.last is None or context.last.drafted == 0 or context.last.accepted > 0


@pytest.mark.parametrize(
    "inner",
    ["sync_chain", {"strategy": "async_tree", "k": 3, "f": 2}, "sync_tree", "prompt_lookup", {"strategy": "cascade"}],
    ids=lambda inner: inner if isinstance(inner, str) else inner["strategy"],
)
def test_a_wrapper_pauses_any_strategy_and_stays_exact(tiny_pair: Any, inner: Any):
    plain = run(tiny_pair, "autoregressive")
    paused = run(tiny_pair, Paused(inner=inner))
    assert texts(paused) == texts(plain)
    by_request: dict[int, list[dict[str, Any]]] = {}
    for row in paused.trace.to_rows():
        by_request.setdefault(row["request_id"], []).append(row)
    for rows in by_request.values():
        for before, after in itertools.pairwise(rows):
            if before["num_drafted"] and not before["num_accepted"]:
                assert after["origin"] == "none" and after["num_drafted"] == 0
    reads = Paused(inner=inner).reads_expected
    assert reads == Paused(inner=inner).inner.reads_expected == (inner == "prompt_lookup" or "cascade" in str(inner))
    assert Paused(inner=inner).lookahead == registry.config("paused", {"inner": inner}).lookahead


registry.register(Paused)


@pytest.mark.usefixtures("registered")
def test_registered_components_are_fields_schema_command_line_and_grid():
    config = registry.config("async_tree", {"k": 2, "fan_out": {"kind": "falling", "first": 4}, "fallback": "never"})
    assert config.schedule.after_hit(2) == (4, 3, 2)  # type: ignore[attr-defined]
    assert type(config).model_validate(config.model_dump(mode="json")) == config
    told = CliRunner().invoke(app, ["strategies", "async_tree"])
    assert "falling" in told.stdout and "never" in told.stdout
    schema = json.loads(CliRunner().invoke(app, ["strategies", "async_tree", "--json"]).stdout)
    assert "falling" in json.dumps(schema)
    labels = [
        c.label for c in configurations({name: registry.all()[name] for name in ("async_tree", "sync_tree")}).accepted
    ]
    assert any('"falling"' in label for label in labels) and any('"never"' in label for label in labels)
    assert any('"fork"' in label for label in labels)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("strategy", "fields"),
    [
        ("async_tree", {"k": 3, "fan_out": {"kind": "falling"}, "fallback": {"kind": "never"}}),
        ("sync_tree", {"tree": {"kind": "fork"}}),
    ],
)
def test_registered_components_run_exactly(tiny_pair: Any, strategy: str, fields: dict[str, Any]):
    result = run(tiny_pair, strategy, draft_link="auto", **fields)
    assert texts(result) == texts(run(tiny_pair, "autoregressive"))
    if strategy == "async_tree":
        assert {tuple(row["fan_out"]) for row in result.trace.to_rows() if row["fan_out"]} == {(3, 2, 1, 1)}


def test_what_is_no_component_or_has_a_taken_name_is_refused():
    class Uniform(Schedule):
        kind: Literal["uniform"] = "uniform"

        def after_hit(self, k: int) -> tuple[int, ...]:
            return (1,) * (k + 1)

    class Nameless(Schedule):
        def after_hit(self, k: int) -> tuple[int, ...]:
            return (1,) * (k + 1)

    with pytest.raises(ConfigError, match="'uniform' is there already"):
        ssd_lab.register_schedule(Uniform)
    with pytest.raises(ConfigError, match="give it a field kind"):
        ssd_lab.register_schedule(Nameless)
    with pytest.raises(ConfigError, match="derive from TreeShape"):
        ssd_lab.register_tree(Falling)
    assert ssd_lab.register_schedule(Falling) is ssd_lab.register_schedule(Falling)
    SCHEDULES._classes.clear()


def test_a_trace_has_its_numbers_and_is_a_table(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    result = run(tiny_pair, "sync_chain")
    assert result.trace.metrics == result.metrics
    rows = result.trace.to_rows()
    assert len(rows) == result.metrics.num_sequence_rounds
    assert sum(row["num_emitted"] for row in rows) == result.metrics.num_output_tokens
    assert {row["strategy"] for row in rows} == {"sync_chain"}
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        result.trace.to_pandas()
