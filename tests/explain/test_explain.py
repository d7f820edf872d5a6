"""Each planted cause is the one that gets the blame, and the gain is what removing it would give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from timed_rounds import Spans, async_run, plain_run, sync_run
from typer.testing import CliRunner

import ssd_lab
from ssd_lab.cli.main import app
from ssd_lab.errors import ConfigError
from ssd_lab.explain import Explanation, RunExplanation
from ssd_lab.explain.explanation import off_from
from ssd_lab.trace import Trace

HALF = [True, False] * 5


def only(explanation: Explanation) -> RunExplanation:
    (run,) = explanation.runs.values()
    return run


def gain(run: RunExplanation, name: str) -> float:
    return next(term.gain for term in run.terms if term.name == name)


@pytest.mark.parametrize(
    ("run", "blamed", "without"),
    [
        # 4 tokens in 2 + 6 s: a free draft leaves 2 s
        (sync_run(Spans(verify=2.0, draft=6.0)), "draft time", 4 / 2),
        # 4 tokens in 8 + 1 s, though a step takes 1: verification as fast as a step leaves 2 s
        (sync_run(Spans(verify=8.0, draft=1.0)), "verify time", 4 / 2),
        # 4 tokens in 1 + 1 + 5 s
        (sync_run(Spans(verify=1.0, draft=1.0, overhead=5.0)), "overhead", 4 / 2),
    ],
)
def test_what_takes_the_time_of_a_synchronous_round_is_blamed(run: Trace, blamed: str, without: float):
    found = only(ssd_lab.explain([plain_run(1.0), run]))
    assert found.blame is not None
    assert (found.blame.name, found.blame.tokens_per_second) == (blamed, pytest.approx(without))
    assert found.predicted_tokens_per_second == pytest.approx(found.measured_tokens_per_second)


def test_a_draft_that_is_never_right_does_not_pay_and_acceptance_is_named():
    run = sync_run(Spans(verify=1.0, draft=0.0), accepted=0)
    found = only(ssd_lab.explain([plain_run(1.0), run]))
    assert (found.speedup, found.pays) == (pytest.approx(1.0), False)
    assert found.blame is not None and found.blame.name == "acceptance"
    assert gain(found, "acceptance") == pytest.approx(4 / 1 - 1 / 1)


def test_misses_are_blamed_where_the_fallback_is_slow():
    found = only(ssd_lab.explain([plain_run(1.0), async_run(Spans(verify=2.0, draft=9.0), 2.0, HALF)]))
    # ten rounds, five with 9 s of drafting: always hitting leaves 2 s a round
    assert gain(found, "hit rate") == pytest.approx(40 / 20 - 40 / 65)
    assert found.hit_rate == 0.5


def test_waiting_for_the_tree_is_blamed_where_it_is_slower_than_verification():
    found = only(ssd_lab.explain([plain_run(1.0), async_run(Spans(verify=1.0, draft=0.3), 4.0, [True] * 10)]))
    assert gain(found, "waiting") == pytest.approx(4 / 1 - 4 / 4)
    assert found.blame is not None and found.blame.name in ("waiting", "draft time")
    quick = only(ssd_lab.explain([plain_run(1.0), async_run(Spans(verify=1.0, draft=0.3), 0.5, [True] * 10)]))
    assert gain(quick, "waiting") == 0.0


def test_sharing_is_told_by_a_run_whose_draft_did_not_work_beside():
    beside = async_run(Spans(verify=3.0, draft=0.3), 1.0, [True] * 10)
    alone = sync_run(Spans(verify=1.5, draft=0.3))
    found = ssd_lab.explain({"plain": plain_run(1.5), "sync": alone, "async": beside})["async"]
    assert found.blame is not None and found.blame.name == "sharing"
    assert gain(found, "sharing") == pytest.approx(4 / 1.5 - 4 / 3.0)
    assert gain(found, "verify time") == 0.0  # beside the draft a plain step would be as slow
    assert not any(t.name == "sharing" for t in only(ssd_lab.explain([plain_run(1.5), beside])).terms)


def test_no_gain_is_negative_and_the_largest_comes_first():
    for run in (sync_run(Spans(2.0, 1.0, 0.1)), async_run(Spans(2.0, 1.0, 0.1, 0.1), 3.0, HALF)):
        gains = [term.gain for term in only(ssd_lab.explain([plain_run(1.0), run])).terms]
        assert gains == sorted(gains, reverse=True) and min(gains) >= 0


def test_off_from_is_the_batch_from_which_it_never_pays_again():
    assert off_from({1: 1.5, 2: 1.2, 4: 0.9, 8: 0.7}) == 4
    assert off_from({1: 0.9, 2: 1.2, 4: 0.9}) == 4
    assert off_from({1: 0.9, 2: 0.8}) == 1
    assert off_from({1: 1.5, 2: 1.01}) is None
    assert off_from({}) is None


def test_speculation_is_switched_off_where_rows_are_dear_and_stays_on_where_they_are_free():
    # a row costs a second: 4 rows for 2 tokens and more lose as soon as drafting costs anything
    dear = only(ssd_lab.explain([plain_run(1.0), sync_run(Spans(verify=4.0, draft=0.1), accepted=1)]))
    assert dear.off_from_batch == 1
    free = only(ssd_lab.explain([plain_run(1.0), sync_run(Spans(verify=1.0, draft=0.1), accepted=2)]))
    assert free.off_from_batch is None
    assert set(free.speedup_by_batch) == {1, 2, 4, 8, 16, 32, 64}


def told(**fields: object) -> RunExplanation:
    values = {
        "strategy": "async_tree", "batch": 8, "measured_tokens_per_second": 47.0, "predicted_tokens_per_second": 50.0,
        "baseline_tokens_per_second": 100.0, "tokens_per_round": 3.0, "acceptance_rate": 0.7, "hit_rate": 0.8,
        "verify_over_step": 1.2, "terms": [], "timed_to": 8,
        "speedup_by_batch": {1: 0.73, 2: 0.71, 4: 0.53, 8: 0.47, 16: 0.59, 32: 0.83, 64: 1.33}, **fields,
    }  # fmt: skip
    return RunExplanation(**values)  # type: ignore[arg-type]


def test_it_claims_no_batch_beyond_what_was_timed_and_does_not_contradict_itself():
    run = told()
    assert (run.pays_at, run.off_at, run.off_from_batch) == ([], [1, 2, 4, 8], 1)
    text = " ".join(run.sentences())
    assert "not faster" in text and "47.0 tokens/s, 8 sequences together" in text
    assert "It should be off at batch 1 to 8 (" in text
    assert "16 and more are beyond what was timed" in text
    assert "pay at" not in text


def test_batches_are_told_in_ranges_of_what_pays_and_what_does_not():
    run = told(speedup_by_batch={1: 1.5, 2: 1.2, 4: 0.9, 8: 1.1}, timed_to=None)
    assert "It should pay at batch 1 to 2, 8, and be off at batch 4 (simulated" in run.sentences()[-1]


def test_an_interval_that_holds_one_is_no_verdict():
    noise = told(measured_tokens_per_second=98.0, speedup_interval=(0.9, 1.07))
    assert "0.98 (0.90 to 1.07) times" in noise.sentences()[0]
    assert "neither faster nor slower beyond noise" in noise.sentences()[0]
    assert "off at batch 1 to 4, and at batch 8 neither is faster beyond noise" in noise.sentences()[-1]


def test_at_its_own_batch_the_run_itself_tells_and_its_rounds_the_interval():
    found = only(ssd_lab.explain([plain_run(1.0), sync_run(Spans(verify=4.0, draft=0.1), accepted=1)]))
    assert found.speedup_by_batch[found.batch] == found.speedup
    assert found.speedup_interval is not None and found.speedup is not None
    low, high = found.speedup_interval
    assert low <= found.speedup <= high
    assert found.timed_to is not None and found.timed_to >= found.batch


def test_without_an_autoregressive_run_it_says_what_it_cannot_know():
    found = only(ssd_lab.explain(sync_run(Spans(2.0, 1.0))))
    assert (found.pays, found.speedup, found.off_from_batch) == (None, None, None)
    assert any("no autoregressive run" in caveat for caveat in found.caveats)
    assert all(term.name != "verify time" for term in found.terms)


def test_a_published_machine_prices_the_rounds_and_says_so():
    found = only(ssd_lab.explain(sync_run(Spans(2.0, 1.0)), "published-4xh100+1"))
    assert found.measured_tokens_per_second is None
    assert found.predicted_tokens_per_second == pytest.approx(4 / (3 * 2.54e-3 + 11.45e-3 - 3 * 0.0626e-3))
    assert any("not measured" in caveat for caveat in found.caveats)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Trace({}), "no rounds were recorded"),
        ([plain_run(1.0)], "only autoregressive"),
        ([], "nothing"),
        (3, "no traces in int 3: give a Trace"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_a_reason(given: object, message: str):
    with pytest.raises(ConfigError, match=message):
        ssd_lab.explain(given)


def test_all_views_name_the_blame():
    explanation = ssd_lab.explain([plain_run(1.0), sync_run(Spans(verify=2.0, draft=6.0))])
    assert "Why it does not pay: draft time" in str(explanation)
    assert "draft time" in explanation._repr_html_()
    assert json.loads(json.dumps(explanation.as_dict()))["sync_chain"]["blame"] == "draft time"
    few = ssd_lab.explain([plain_run(1.0), sync_run(Spans(verify=1.0, draft=0.5), accepted=1)])
    assert only(few).terms[0].name == "acceptance", "which gains more than the cause that something can be done about"
    assert "holds it back most, acceptance aside: draft time" in str(few)


def test_the_command_line_explains_saved_traces(tmp_path: Path):
    paths = [str(tmp_path / name) for name in ("plain.jsonl", "sync.jsonl")]
    plain_run(1.0).save(paths[0])
    sync_run(Spans(verify=2.0, draft=6.0)).save(paths[1])
    shown = CliRunner().invoke(app, ["explain", *paths])
    assert shown.exit_code == 0 and "Why it does not pay: draft time" in " ".join(shown.stdout.split())
    as_json = CliRunner().invoke(app, ["explain", *paths, "--json"])
    assert json.loads(as_json.stdout)["sync_chain"]["pays"] is False
    assert CliRunner().invoke(app, ["explain", paths[0]]).exit_code == 2


@pytest.mark.full
def test_a_comparison_of_real_runs_explains_itself(tiny_pair):
    comparison = ssd_lab.compare(
        ["Hi", "What?"], target=tiny_pair.target, draft=tiny_pair.draft, dtype="float32", max_tokens=24, k=2, f=1,
        threads=1, draft_link="thread", progress=False,
    )  # fmt: skip
    explanation = comparison.explain()
    assert set(explanation.runs) == {"sync_chain", "async_tree"}
    for run in explanation.runs.values():
        assert run.measured_tokens_per_second and run.predicted_tokens_per_second > 0 and run.speedup
        assert {"draft time", "acceptance", "verify time", "overhead"} <= {term.name for term in run.terms}
    assert comparison["sync_chain"].explain().runs["sync_chain"].pays is None
