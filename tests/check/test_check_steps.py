"""What a trace tells of each emitted token: offers of chains and trees, and what they were drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from ssd_lab.check.steps import OTHERS, Offer, Step, steps_of
from ssd_lab.trace.records import Position, SequenceRound, TreeRecord

VOCAB = 4
TARGET = np.full((4, VOCAB), 0.25)


def place(*draft_probs: float) -> Position:
    """A place where every token is listed, in some order."""
    tokens = [2, 0, 3, 1]
    shuffled = [draft_probs[token] for token in tokens] if draft_probs else None
    return Position(tokens, [0.25] * VOCAB, shuffled)


def a_round(tokens: list[int], num_accepted: int, num_emitted: int, **fields: object) -> SequenceRound:
    ones = [1.0] * len(tokens)
    return SequenceRound(0, 5, tokens, ones, ones, num_accepted, 3, 0.25, num_emitted, "draft", **fields)  # type: ignore[arg-type]


def offers(rounds: list[SequenceRound], tokens: list[int]) -> list[Offer]:
    steps = steps_of(rounds, tokens, TARGET[: len(tokens)], filtered=False, details=VOCAB)
    assert [step.emitted for step in steps] == tokens
    assert all(step.offer is not None for step in steps)
    return [step.offer for step in steps if step.offer is not None]


def test_a_chain_offers_one_token_at_each_place_and_nothing_behind_its_end():
    laws = (0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1)
    whole = a_round([1, 2], 2, 3, alternatives=[place(*laws[0]), place(*laws[1]), place()])
    first, second, third = offers([whole], [1, 2, 3])
    assert (first.tokens, first.kept) == ([1], 0)
    assert first.drafted == pytest.approx(laws[0])
    assert second.drafted == pytest.approx(laws[1])
    assert third == Offer([])


def test_a_refused_token_ends_the_round():
    refused = a_round([1, 2], 0, 1, alternatives=[place(0.1, 0.2, 0.3, 0.4)] * 2 + [place()])
    assert [(offer.tokens, offer.kept) for offer in offers([refused], [3])] == [([1], -1)]


@pytest.mark.parametrize("where", [place(), place(0, 1, 0, 0)], ids=["none", "in ones"])
def test_a_certain_guess_was_drawn_from_nothing(where: Position):
    assert offers([a_round([1], 0, 1, alternatives=[where, place()])], [3]) == [Offer([1], -1, None)]


def test_a_tree_offers_the_children_along_the_accepted_path():
    # the root's children 0 and 1, those of 1 are 2 and 3; node 1 is kept, then neither of its children
    tree = TreeRecord(
        [0, 1, 2, 0], [-1, -1, 1, 1], [0.5] * 4, [0.25] * 4,
        alternatives=[place(0.4, 0.3, 0.2, 0.1), place(0, 0.5, 0.3, 0.2), place(0.2, 0.2, 0.5, 0.1), place()],
    )  # fmt: skip
    first, second = offers([a_round([1, 2], 1, 2, tree=tree)], [1, 3])
    assert (first.tokens, first.kept) == ([0, 1], 1)
    assert first.drafted == pytest.approx((0.4, 0.3, 0.2, 0.1))
    assert (second.tokens, second.kept) == ([2, 0], -1)
    assert second.drafted == pytest.approx((0.2, 0.2, 0.5, 0.1))


def test_a_tree_that_was_only_prepared_is_not_what_was_offered():
    prepared = TreeRecord([0, 1], [-1, -1], [0.5] * 2)
    chain = a_round([1], 0, 1, tree=prepared, alternatives=[place(0.1, 0.2, 0.3, 0.4), place()])
    assert [offer.tokens for offer in offers([chain], [3])] == [[1]]


def test_without_whole_distributions_only_paths_are_told():
    steps = steps_of([a_round([1], 1, 2)], [1, 3], TARGET[:2], filtered=True, details=0)
    assert steps == [Step(1, pytest.approx(TARGET[0]), "draft", True), Step(3, pytest.approx(TARGET[1]), "draft", True)]


def test_a_list_of_the_likeliest_tells_what_the_first_token_was_drawn_from():
    listed = Position([3, 1, 2], [0.25, 0.25, 0.25], [0.4, 0.2, 0.3])
    chain = SequenceRound(0, 5, [1, 2], [0.2, 0.3], [0.1, 0.6], 1, 3, 0.25, 2, "draft", alternatives=[listed] * 3)
    first, second = [step.offer for step in steps_of([chain], [1, 3], TARGET[:2], filtered=False, details=2)]
    assert first is not None and second is not None
    assert first.listed is not None and first.listed.tolist() == [3, 2, OTHERS]
    assert first.drafted == pytest.approx([0.4, 0.3, 0.3])
    assert (first.tokens, first.kept, first.chance) == ([1], 0, pytest.approx(0.5))
    assert (second.kept, second.chance) == (-1, 1.0)


def test_the_token_that_was_drawn_has_no_say_in_what_is_listed():
    """Of a tree a node's own token is always among those at its place."""
    tried = Position([0, 1, 3], [0.25, 0.25, 0.25], [0.1, 0.5, 0.2])
    tree = TreeRecord([0, 1], [-1, -1], [0.1, 0.5], [0.25, 0.25], alternatives=[tried, tried])
    (offer,) = [
        step.offer for step in steps_of([a_round([1], 1, 1, tree=tree)], [1], TARGET[:1], filtered=False, details=2)
    ]
    assert offer is not None and offer.listed is not None
    assert offer.listed.tolist() == [1, 3, OTHERS]
    assert (offer.tokens, offer.kept) == ([0], -1), "the second child was kept"
