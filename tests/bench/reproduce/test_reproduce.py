"""The paper's figures: ranks against a slow twin on real rounds, the sections, the files that are written."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from ssd_lab import demo
from ssd_lab.bench.reproduce import headline, miss_rate, schedules
from ssd_lab.bench.reproduce.line_chart import Line, line_chart
from ssd_lab.bench.reproduce.recording import Recordings, record, split
from ssd_lab.bench.reproduce.report import SECTIONS, reproduce
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM


@pytest.fixture(scope="module")
def recordings() -> Recordings:
    """Two prompts of each set: real rounds, few of them."""
    return record(prompts=2, max_tokens=48, k=4, threads=1, dtype="float32", budgets=(8,), draft_link="inline")


def test_ranks_are_those_of_the_drafts_own_logits(recordings: Recordings):
    """Each recorded rank again, one round at a time, by sorting the draft's logits after the text so far."""
    checked = same = 0
    with LLM(str(demo.DRAFT), None, "autoregressive", progress=False, threads=1, dtype="float32") as draft:
        for trace in recordings.traces.values():
            texts = {r.request_id: [*r.prompt_ids, *r.token_ids] for r in trace.requests}
            for own in [s for one in trace.rounds[::5] for s in one.sequences if s.recovery_rank is not None]:
                place = own.position + own.num_accepted
                if own.num_emitted <= own.num_accepted or own.recovery_rank == trace.meta["ranked_candidates"]:
                    continue  # the recovery token did not enter the text, or all that is known is that it is rare
                assert texts[own.request_id][place] == own.recovery_token
                logits = draft.score(texts[own.request_id][:place])[-1]
                order = logits.argsort(descending=True, stable=True).tolist()
                if own.num_accepted < len(own.draft_tokens):
                    order.remove(own.draft_tokens[own.num_accepted])
                same += order.index(own.recovery_token) == own.recovery_rank
                checked += 1
    assert checked > 20
    assert same >= checked - 1  # a forward of another length rounds differently, and a near tie may turn


def test_rounds_know_their_hits_and_halves_are_disjoint(recordings: Recordings):
    trace = recordings.traces[0.0]
    rounds = [s for one in trace.rounds for s in one.sequences]
    first = {s.request_id: s for s in reversed(rounds)}
    assert all(s.cache_hit is None for s in first.values())
    assert any(s.cache_hit for s in rounds)
    halves = [{s.request_id for one in half.rounds for s in one.sequences} for half in split(trace)]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == {s.request_id for s in rounds}


def test_by_confidence_was_run_on_the_same_rounds(recordings: Recordings):
    for temperature, trace in recordings.traces.items():
        other = recordings.by_confidence[temperature, 8]
        assert [r.token_ids for r in other.requests] == [r.token_ids for r in trace.requests]
        fan_outs = [own.fan_out for one in other.rounds for own in one.sequences if own.fan_out is not None]
        assert {sum(fan_out) for fan_out in fan_outs} == {8}
        assert len({tuple(fan_out) for fan_out in fan_outs}) > 5


def test_distributions_along_the_text_are_distributions(recordings: Recordings):
    for probs in (*recordings.target_probs.values(), *recordings.draft_probs.values()):
        assert torch.allclose(probs.sum(-1), torch.ones(len(probs)), atol=1e-4)
    assert recordings.target_probs[1.0].shape == recordings.draft_probs[1.0].shape


def test_every_cheap_section_has_numbers_claims_and_figures(recordings: Recordings):
    for module in (miss_rate, schedules):
        section = module.section(recordings)
        assert section.claims and section.tables[0].rows and section.numbers
        json.dumps(section.numbers)
        for svg in section.figures.values():
            ET.fromstring(svg)


def test_the_headline_follows_from_its_synchronous_half_within_five_percent():
    section = headline.section()
    assert [claim.holds for claim in section.claims] == [True, True, False]
    means = section.numbers["means"]
    assert means["simulated"][2] == pytest.approx(255.8, rel=0.05)
    with pytest.raises(ConfigError, match="tokens a round of at most 7"):
        headline.acceptance_for(500.0)


def test_the_report_is_written(tmp_path: Path):
    reproduce(tmp_path / "new", sections=["headline"])
    text = (tmp_path / "new" / "report.md").read_text()
    assert "| mean |" in text and "does not hold" in text
    assert "headline" in json.loads((tmp_path / "new" / "report.json").read_text())["sections"]


def test_what_cannot_be_reproduced_is_explained(tmp_path: Path):
    with pytest.raises(ConfigError, match=f"there are {', '.join(SECTIONS)}"):
        reproduce(tmp_path, sections=["none"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        reproduce(tmp_path / "file" / "folder", sections=["headline"])
    with pytest.raises(ConfigError, match="at least 2"):
        record(prompts=1)


def test_a_chart_draws_lines_and_leaves_out_what_a_logarithm_cannot_show():
    svg = ET.fromstring(
        line_chart(
            [Line("a < b", [(0, 1), (1, 10), (10, 100)])], title="t", x_title="x", y_title="y", log_x=True, log_y=True
        )
    )
    polyline = next(e for e in svg.iter() if e.tag.endswith("polyline"))
    assert len(polyline.attrib["points"].split()) == 2
