"""Results show the same numbers in every form, and never hide that a number is simulated or a text lossy."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import pytest
from rich.console import Console

from ssd_lab.errors import ConfigError
from ssd_lab.results import Comparison, Output, RunResult
from ssd_lab.trace import RequestRecord, RoundRecord, SequenceRound, Trace, compute_metrics


def run_result(name: str, accepted: list[int], *, texts: tuple[str, ...] = ("Hello",), **meta: Any) -> RunResult:
    """A run of one second a round with k = 3 (autoregressive: no drafts)."""
    k = 0 if name == "autoregressive" else 3
    rounds = [
        RoundRecord(
            i, float(i), i + 1.0,
            [SequenceRound(0, 4 + i, [7] * k, [1.0] * k, [1.0] * k, a, 9, 1.0, a + 1, "draft" if k else "none")],
        )
        for i, a in enumerate(accepted)
    ]  # fmt: skip
    requests = [RequestRecord(0, "Hi", [1], [0] * (sum(accepted) + len(accepted)), "", "length", 0.0, 0.5, 9.0)]
    trace = Trace({"exact": True, **meta}, requests, rounds)
    outputs = [Output(i, "Hi", [1], text, [ord(c) for c in text], "length") for i, text in enumerate(texts)]
    return RunResult(outputs, compute_metrics(trace), trace, {"name": name, "k": k})


def terminal(renderable: Any, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        {
            "autoregressive": run_result("autoregressive", [0] * 8, texts=("one", "two")),
            "chain": run_result("sync_chain", [3, 1], texts=("one", "too")),
        }
    )


def test_a_run_reads_as_its_first_text_and_one_line():
    text = str(run_result("sync_chain", [3, 1]))
    assert text == (
        "'Hello'\nsync_chain | tokens/s 3.0 | tokens/round 3.00 | acceptance 80% | first token 500 ms | tokens 6"
        "\n3.00 tokens for each pass of the target, which alone gives one; the text is the target's own"
    )


def test_long_texts_are_cut_and_further_outputs_counted():
    shown = repr(run_result("sync_chain", [1], texts=("a" * 500, "b")))
    assert "a" * 159 + "… (+ 1 more)" in shown
    assert "a" * 160 not in shown


def test_the_notebook_display_is_escaped_and_self_contained():
    shown = run_result("sync_chain", [1], texts=("<script>alert(1)</script>",))._repr_html_()
    assert "&lt;script&gt;" in shown and "<script" not in shown
    assert "http" not in shown and "class=" not in shown


def test_every_display_says_that_a_run_is_not_exact():
    lossy = run_result("sync_chain", [1], exact=False, lossy_reason="typical acceptance")
    both = Comparison({"lossy": lossy})
    for shown in (str(lossy), lossy._repr_html_(), terminal(lossy), str(both), both._repr_html_(), terminal(both)):
        assert "NOT EXACT" in shown and "typical acceptance" in shown
    assert both.rows()[0]["exact"] is False


def test_a_run_that_lost_its_draft_says_so():
    assert "DEGRADED to autoregressive: worker died" in str(run_result("sync_chain", [1], degraded="worker died"))


def test_model_text_is_never_terminal_markup():
    assert "[bold]x[/bold]" in terminal(run_result("sync_chain", [1], texts=("[bold]x[/bold]",)))


def test_empty_and_failed_runs_can_be_shown():
    empty = RunResult([], compute_metrics(Trace({})), Trace({}), {})
    assert "(no outputs)" in str(empty)
    assert "(no outputs)" in empty._repr_html_()
    failed = run_result("sync_chain", [1])
    failed = dataclasses.replace(failed, outputs=[dataclasses.replace(failed.outputs[0], error="out of blocks")])
    assert "[error: out of blocks]" in str(failed)
    assert Comparison({}).rows() == [] and Comparison({}).baseline is None
    assert Comparison({"empty": empty}).rows()[0]["simulated_tokens_per_second"] is None


def test_a_comparison_measures_against_its_autoregressive_run(comparison: Comparison):
    first, second = comparison.rows()
    assert (first["speedup"], first["same_text"]) == (1.0, 2)
    assert (second["speedup"], second["same_text"], second["num_outputs"]) == (3.0, 1, 2)
    assert second["tokens_per_round"] == 3.0
    assert first["simulated_tokens_per_second"] == pytest.approx(54.7)
    assert second["simulated_tokens_per_second"] == pytest.approx(6 / (2 * 0.01907), rel=0.02)  # k = 3


def test_the_baseline_is_known_by_its_strategy_not_by_its_label(comparison: Comparison):
    renamed = Comparison({"plain": comparison["autoregressive"], "chain": comparison["chain"]})
    assert renamed.rows()[1]["speedup"] == 3.0
    alone = Comparison({"chain": comparison["chain"]}).rows()[0]
    assert alone["speedup"] is None and alone["same_text"] is None


def test_a_comparison_has_the_same_cells_in_every_form(comparison: Comparison):
    for shown in (comparison.to_markdown(), comparison._repr_html_(), terminal(comparison)):
        for cell in ("chain", "3.00x", "1/2", "80%", "simulated", "published-4xh100+1"):
            assert cell in shown
    assert comparison.to_markdown().splitlines()[1].startswith("| --- | ---: |")


def test_a_narrow_terminal_gets_one_column_a_run(comparison: Comparison):
    lines = terminal(comparison, width=60).splitlines()
    assert any("autoregressive" in line and "chain" in line for line in lines)
    assert any("tokens/s (simulated)" in line for line in lines)
    assert all(len(line) <= 60 for line in lines)


def test_a_comparison_is_json(comparison: Comparison):
    data = json.loads(json.dumps(comparison.as_dict()))
    assert [row["name"] for row in data["rows"]] == ["autoregressive", "chain"]
    assert json.loads(json.dumps(comparison["chain"].as_dict()))["strategy"]["name"] == "sync_chain"


def test_an_unknown_run_is_named(comparison: Comparison):
    with pytest.raises(ConfigError, match=r"no run 'tree'.*autoregressive, chain"):
        comparison["tree"]


def test_a_run_can_be_simulated_elsewhere():
    simulation = run_result("sync_chain", [3, 1]).simulated(strategy="async", hit_rate=1.0)
    assert (simulation.hardware, simulation.strategy) == ("published-4xh100+1", "async")


def with_turns(run: RunResult, *speeds: float) -> RunResult:
    return dataclasses.replace(run, turns=speeds)


def test_repeated_runs_show_their_mean_and_how_far_to_believe_it():
    plain = with_turns(run_result("autoregressive", [0] * 8), 1.0, 1.1, 0.9)
    chain = with_turns(run_result("sync_chain", [3, 1]), 3.0, 3.3, 2.7)
    both = Comparison({"autoregressive": plain, "sync_chain": chain})
    first, second = both.rows()
    assert (first["speedup"], first["speedup_low"]) == (1.0, 1.0)
    assert second["tokens_per_second"] == pytest.approx(3.0)
    assert second["tokens_per_second_low"] < 2.7 and second["tokens_per_second_high"] > 3.3
    assert second["speedup_low"] < second["speedup"] < second["speedup_high"]
    assert second["speedup"] == pytest.approx(3.0)
    assert "3.0 (2.3 to 3.7)" in str(both) and "means of 3 turns" in str(both) and "once" not in str(both)
    assert "means of 3 turns" in str(chain) and chain.as_dict()["turns"] == [3.0, 3.3, 2.7]


def test_what_was_measured_once_says_so(comparison: Comparison):
    assert "each speed was measured only once" in str(comparison)
    once = comparison.rows()[1]
    assert once["speedup"] == 3.0 and once["speedup_low"] is None and "3.00x |" in str(comparison)


@pytest.mark.parametrize(("cpu_s", "is_told"), [(0.4, True), (0.95, False), (1.9, False)])
def test_a_busy_processor_is_told_of(cpu_s: float, is_told: bool):
    run = run_result("sync_chain", [3, 1], processor={"cpu_s": cpu_s, "wall_s": 1.0})
    for shown in (str(run), str(Comparison({"chain": run})), Comparison({"chain": run})._repr_html_()):
        assert ("processor was busy with other work" in shown) == is_told
    assert run.metrics.processor_share == pytest.approx(cpu_s)


def test_a_moment_says_nothing_of_the_processor():
    assert run_result("sync_chain", [3], processor={"cpu_s": 0.0, "wall_s": 0.1}).metrics.processor_share is None
    assert run_result("sync_chain", [3]).metrics.processor_share is None


def test_sampled_text_is_called_a_draw():
    run = run_result("sync_chain", [3, 1])
    warm = dataclasses.replace(run.trace.requests[0], params={"temperature": 0.8})
    trace = dataclasses.replace(run.trace, requests=[warm])
    assert "a draw by the target's own probabilities" in str(dataclasses.replace(run, trace=trace))
