"""The paper's figures: ranks against a slow twin on real rounds, the sections, the files that are written."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd_lab import demo
from ssd_lab.bench.reproduce import eagle3, headline, miss_rate, report, schedules
from ssd_lab.bench.reproduce.recording import Recordings
from ssd_lab.bench.reproduce.report import SECTIONS, reproduce
from ssd_lab.bench.reproduce.section import PaperSection
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.simulate.confidence_replay import replayed_confidence
from ssd_lab.strategies.fanout import Adaptive
from ssd_lab.trace.outcomes import halves, looked_up

SMALL: dict[str, Any] = {"prompts": 2, "max_tokens": 32, "k": 4, "threads": 1, "dtype": "float32"}


@pytest.fixture(scope="module")
def recordings() -> Recordings:
    """Two prompts of each set: real rounds, few of them."""
    return Recordings(**SMALL, draft_link="inline")


@pytest.mark.full
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


@pytest.mark.full
def test_rounds_know_their_hits_and_halves_are_disjoint(recordings: Recordings):
    trace = recordings.traces[0.0]
    rounds = [s for one in trace.rounds for s in one.sequences]
    first = {s.request_id: s for s in reversed(rounds)}
    assert all(s.cache_hit is None for s in first.values())
    assert any(s.cache_hit for s in rounds)
    first_ids, second_ids = ({s.request_id for one in half.rounds for s in one.sequences} for half in halves(trace))
    assert not first_ids & second_ids
    assert first_ids | second_ids == {s.request_id for s in rounds}


@pytest.mark.full
@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.extended), 1.0])
def test_by_confidence_is_replayed_as_it_runs(recordings: Recordings, temperature: float):
    """The same prompts with the schedule itself: every lookup's hit again, from the draft's opinions alone."""
    trace, budget = recordings.trace(temperature), 10
    learner = Adaptive(budget=budget).confidence()
    assert learner is not None
    replayed = replayed_confidence(trace, recordings.opinions(temperature), learner, recordings.k)
    params = [r.params for r in trace.requests]
    with LLM(
        str(demo.TARGET), str(demo.DRAFT), "async_tree", k=recordings.k, fan_out={"kind": "adaptive", "budget": budget},
        progress=False, threads=1, dtype="float32", draft_link="inline",
    ) as llm:  # fmt: skip
        run = llm.run([r.prompt_ids for r in trace.requests], [SamplingParams(**own) for own in params]).trace
    assert [r.token_ids for r in run.requests] == [r.token_ids for r in trace.requests]
    happened: dict[int, list[bool]] = {own: [] for own in replayed}
    renamed = {a.request_id: b.request_id for a, b in zip(run.requests, trace.requests, strict=True)}
    counted = {id(own) for rows in looked_up(run, recordings.k) for own in rows}
    before: dict[int, bool] = {}
    for own in (s for one in run.rounds for s in one.sequences):
        if before.get(own.request_id):
            assert own.cache_hit is not None
            happened[renamed[own.request_id]].append(own.cache_hit)
        before[own.request_id] = id(own) in counted
    assert {own: len(hits) for own, hits in happened.items()} == {own: len(hits) for own, hits in replayed.items()}
    pairs = [pair for own in replayed for pair in zip(replayed[own], happened[own], strict=True)]
    assert len(pairs) > 40 and 0.1 < sum(a for a, _ in pairs) / len(pairs) < 0.98
    assert sum(a != b for a, b in pairs) <= 1  # another forward rounds differently, and a near tie may turn


@pytest.mark.full
def test_distributions_along_the_text_are_distributions(recordings: Recordings):
    target, draft = recordings.distributions(1.0)
    assert target.shape == draft.shape
    for probs in (target, draft):
        assert torch.allclose(probs.sum(-1), torch.ones(len(probs)), atol=1e-4)


@pytest.mark.full
def test_no_schedule_over_lengths_beats_hindsight_and_all_are_tried_on_the_same_lookups(recordings: Recordings):
    k = recordings.k
    for trace in recordings.traces.values():
        for budget in (k + 1, 3 * (k + 1)):
            hits = schedules.contenders(trace, budget, k)
            lengths = [{own: len(one) for own, one in hits[name].items()} for name in hits]
            assert all(one == lengths[0] for one in lengths)
            for other in ("uniform", "paper's law"):
                assert schedules.rate(hits["hindsight"]) >= schedules.rate(hits[other])


def test_a_schedule_that_is_worse_is_told_from_chance():
    """Planted: 30 requests of 40 lookups, of which the schedule hits 70 % and the uniform one 80 %; and the same."""
    generator = random.Random(3)
    uniform = {own: [generator.random() < 0.8 for _ in range(40)] for own in range(30)}
    worse = {own: [hit and generator.random() < 0.875 for hit in hits] for own, hits in uniform.items()}

    def judged(hits: dict[int, list[bool]]) -> list[bool | None]:
        found = schedules.gap(hits, uniform)
        assert found is not None
        entry = {"temperature": 1.0, "budget": 8, "over_uniform": dict.fromkeys(schedules.COMPARED, found.as_dict())}
        return [claim.holds for claim in schedules.claims([entry])][:2]

    assert judged(worse) == [False, False]
    assert judged(uniform) == [True, False]
    assert judged({own: [True] * 40 for own in uniform}) == [True, True]


@pytest.mark.full
def test_every_cheap_section_has_numbers_claims_and_figures(recordings: Recordings):
    for module in (miss_rate, schedules, eagle3):
        section = module.section(recordings)
        assert PaperSection.from_dict(json.loads(json.dumps(section.as_dict()))).claims == section.claims
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


@pytest.mark.full
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
        Recordings(prompts=1)


@pytest.mark.full
def test_a_report_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is recorded is not recorded again, a finished section not made again, and other settings are refused."""
    made: list[str] = []

    def begin(**changed: Any) -> list[PaperSection]:
        own = {**SMALL, "max_tokens": 16, "draft_link": "inline"}
        return reproduce(tmp_path, on_section=made.append, **{**own, **changed})

    monkeypatch.setattr(report, "SECTIONS", {key: SECTIONS[key] for key in ("headline", "miss_rate")})
    monkeypatch.setattr(Recordings, "_opened", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        begin()
    assert made == ["headline", "miss_rate"]
    assert "| mean |" in (tmp_path / "report.md").read_text()
    monkeypatch.undo()
    monkeypatch.setattr(report, "SECTIONS", {key: SECTIONS[key] for key in ("headline", "miss_rate")})
    assert [section.key for section in begin()] == ["headline", "miss_rate"]
    assert made[2:] == ["miss_rate"]
    recorded = {path: path.stat().st_mtime_ns for path in (tmp_path / "recorded").glob("rounds-*")}
    assert len(recorded) == 3
    begin(sections=["miss_rate"])
    assert made[3:] == ["miss_rate"]
    assert {path: path.stat().st_mtime_ns for path in recorded} == recorded
    with pytest.raises(ConfigError, match="k 4 there and 5 here"):
        begin(k=5)
    begin(k=5, fresh=True, sections=["headline"])
    assert not list((tmp_path / "recorded").glob("rounds-*"))
