"""A draft worker answers the same wherever it runs, and its loss is an error, never a hang."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from worker_rounds import GREEDY, WARM, asked, control_of, round_of

from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.drafting.worker_setup import WorkerSetup
from ssd_lab.errors import DraftWorkerError
from ssd_lab.learning.lookahead import LookaheadChooser
from ssd_lab.links.link import InlineLink
from ssd_lab.links.messages import PrefillMessage, RoundMessage
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.links.thread_link import ThreadLink
from ssd_lab.rounds.prompt_lines import PromptPart
from ssd_lab.strategies.components.fallback import Auto, Fast
from ssd_lab.strategies.fanout import Adaptive, Explicit

PROMPT = [10, 20, 30, 40, 50]


def setup_for(tiny_pair, **plan: object) -> WorkerSetup:
    options = {"k": 2, "fan_out": Explicit(hit=[2, 1, 1], miss=[1, 1, 2]), **plan}
    return WorkerSetup(tiny_pair.draft, "float32", "cpu", 20, 8, 4, 1, DraftPlan(**options), longest_table=4)


def open_link(kind: str, setup: WorkerSetup):
    if kind == "inline":
        return InlineLink(setup.make_worker())
    if kind == "thread":
        return ThreadLink(setup.make_worker, threads=1, start_timeout_s=60)
    return ProcessLink(setup, start_timeout_s=60)


def round_trip(link, message: RoundMessage, sampling=WARM):
    """One round as the engine makes it: the reply, and then time to work ahead."""
    reply = asked(link, message, sampling).answer(30)
    link.work_ahead()
    return reply


@pytest.mark.quick("greedy-inline", "sampled-process")
@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_prepared_outcomes_hit_and_others_miss(tiny_pair, kind: str, sampling) -> None:
    link = open_link(kind, setup_for(tiny_pair))
    try:
        link.post(PrefillMessage([PromptPart(PROMPT[:-1], 0, [1, 2, 3])]))
        first = round_trip(link, round_of(5, 50, None), sampling)
        assert first.origins == ["jit"] and first.cache_hits == [None]
        absent = round_trip(link, round_of(6, 1, 0, 50), sampling)  # token 1 is no likely recovery token
        tree = absent.previous_trees[0].records()[0]
        assert absent.origins == ["jit"] and absent.cache_hits == [False]
        assert len(tree.tokens) == 2 + 4 * 3
        # from here on follow a branch that the second tree must hold
        again = round_trip(link, round_of(7, 2, 0, 1), sampling)
        tree = again.previous_trees[0].records()[0]
        start = next(s for s in range(2, len(tree.tokens), 3) if tree.parents[s] == 0)  # accepted length 1
        hit = round_trip(link, round_of(8, tree.tokens[start], 0, 2), sampling)
        assert hit.cache_hits[0] in (True, False)
        probs = hit.probs
        assert (probs is None) == (sampling == GREEDY)
        if probs is not None:
            torch.testing.assert_close(probs.sum(-1), torch.ones(1, 2))
    finally:
        link.close()


@pytest.mark.fresh_interpreter
def test_every_link_gives_the_same_replies(tiny_pair) -> None:
    replies = []
    for kind in ("inline", "thread", "process"):
        link = open_link(kind, setup_for(tiny_pair))
        link.post(PrefillMessage([PromptPart(PROMPT[:-1], 0, [1, 2, 3])]))
        got = [round_trip(link, round_of(5, 50, None))]
        for step in range(1, 4):
            got.append(round_trip(link, round_of(5 + step, 60 + step, 0, 59 + step)))
        link.close()
        replies.append([(reply.tokens.tolist(), reply.origins, reply.probs.sum().item()) for reply in got])
    assert replies[0] == replies[1] == replies[2]


PLANS = {
    "by confidence, Saguaro": {"fan_out": Adaptive(budget=5), "saguaro_c": 0.5},
    "learned lengths, random": {"fan_out": Adaptive(budget=5, by_confidence=False), "fallback": Fast(source="random")},
    "n-gram": {"fallback": Fast(source="ngram"), "draft_temperature": 0.7},
    "auto, chosen depth": {"fan_out": Adaptive(budget=5), "fallback": Auto(), "lookahead": LookaheadChooser},
}


@pytest.mark.quick("n-gram", "by confidence, Saguaro")
@pytest.mark.parametrize("name", PLANS)
def test_every_plan_travels_and_gives_the_same_replies(tiny_pair, name: str) -> None:
    replies = []
    for kind in ("inline", "process"):
        link = open_link(kind, setup_for(tiny_pair, **PLANS[name]))
        link.post(PrefillMessage([PromptPart(PROMPT[:-1], 0, [1, 2, 3])]))
        link.post(control_of(WARM, PROMPT if name == "n-gram" else None))
        got, accepted, previous, last = [], None, 40, 50
        for step in range(6):
            new = [[last]] if step else [[]]
            new_tokens = torch.tensor(new, dtype=torch.int64) if name == "n-gram" else None
            message = round_of(len(PROMPT) + step, last, accepted, previous, new_tokens=new_tokens)
            got.append(link.ask(message).answer(30))
            link.work_ahead()
            accepted, previous, last = 0, last, 60 + step
        link.close()
        replies.append(
            [(reply.tokens.tolist(), reply.origins, reply.probs.tolist(), reply.predicted_hits) for reply in got]
        )
    assert replies[0] == replies[1]
    assert len(replies[0][-1][0][0]) in (1, 2)


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_closing_twice_is_fine_and_calling_afterwards_is_an_error(tiny_pair, kind: str) -> None:
    link = open_link(kind, setup_for(tiny_pair))
    link.close()
    link.close()
    with pytest.raises(DraftWorkerError):
        asked(link, round_of(5, 50, None)).answer(1)


def test_a_process_that_dies_is_noticed_at_once(tiny_pair) -> None:
    link = open_link("process", setup_for(tiny_pair))
    os.kill(link.process_id, 9)
    with pytest.raises(DraftWorkerError, match="gone"):
        asked(link, round_of(5, 50, None)).answer(600)  # longer than a test may take
    link.close()
    assert not Path(f"/proc/{link.process_id}").exists()


def test_a_worker_that_fails_says_why(tiny_pair) -> None:
    link = open_link("process", setup_for(tiny_pair))
    with pytest.raises(DraftWorkerError, match=r"IndexError|index"):
        asked(link, round_of(5, 99999, None)).answer(30)
    link.close()


def test_a_model_that_cannot_be_loaded_is_an_error_at_the_start(tiny_pair, tmp_path: Path) -> None:
    setup = WorkerSetup(str(tmp_path), "float32", "cpu", 20, 8, 4, 1, DraftPlan(k=2), longest_table=4)
    with pytest.raises(DraftWorkerError, match=r"no config\.json"):
        open_link("process", setup)
