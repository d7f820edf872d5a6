"""Drafters that look into the running text: against slow twins, and for their cost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssd_lab
from ssd_lab.strategies import Context
from ssd_lab.strategies.components.suffix_automaton import SuffixAutomaton

TEXTS = st.lists(st.integers(0, 2), min_size=1, max_size=40)


def guess(strategy, tokens: Sequence[int], memory: dict | None = None) -> list[int]:
    context = Context(0, tokens, len(tokens), ssd_lab.SamplingParams(), {} if memory is None else memory)
    return list(strategy.draft(context))


def growing(strategy, tokens: list[int], steps: list[int]) -> list[list[int]]:
    """Drafts while the text grows by so many tokens a round, with the memory of one request."""
    memory: dict = {}
    lengths = [n for n in (sum(steps[: i + 1]) for i in range(len(steps))) if 0 < n <= len(tokens)]
    return [guess(strategy, tokens[:length], memory) for length in lengths]


def lookup_by_rescan(tokens: list[int], k: int, longest: int, shortest: int) -> list[int]:
    for size in range(min(longest, len(tokens) - 1), shortest - 1, -1):
        for start in range(len(tokens) - size - 1, -1, -1):
            if tokens[start : start + size] == tokens[-size:]:
                return tokens[start + size : start + size + k]
    return []


def test_prompt_lookup_guesses_what_followed_the_latest_match() -> None:
    strategy = ssd_lab.strategies()["prompt_lookup"](k=3)
    assert guess(strategy, [1, 2, 3, 9, 1, 2, 3, 8, 7, 1, 2, 3]) == [8, 7, 1]
    assert guess(strategy, [1, 2, 3]) == []
    assert guess(strategy, [5, 5]) == [5]
    assert guess(strategy, [4]) == []


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 3))
def test_prompt_lookup_remembers_what_a_rescan_would_find(
    tokens: list[int], steps: list[int], longest: int, shortest: int
) -> None:
    strategy = ssd_lab.strategies()["prompt_lookup"](k=3, longest=longest, shortest=shortest)
    lengths = [n for n in (sum(steps[: i + 1]) for i in range(len(steps))) if n <= len(tokens)]
    expected = [lookup_by_rescan(tokens[:length], 3, longest, shortest) for length in lengths]
    assert growing(strategy, tokens, steps) == expected


def test_prompt_lookups_file_is_short() -> None:
    file = Path(ssd_lab.strategies.prompt_lookup.__file__)
    assert len(file.read_text(encoding="utf-8").splitlines()) < 60


def occurrences(text: Sequence[int], part: Sequence[int]) -> list[int]:
    """Where `part` ends in `text`."""
    size = len(part)
    return [end for end in range(size, len(text) + 1) if tuple(text[end - size : end]) == tuple(part)]


def repeated_endings(text: Sequence[int]) -> list[int]:
    """Lengths of the endings that occurred before, one for each set of places where they end, longest first."""
    lengths: list[int] = []
    seen: set[tuple[int, ...]] = set()
    for size in range(len(text) - 1, 0, -1):
        places = tuple(occurrences(text, text[-size:]))
        if len(places) > 1 and places not in seen:
            seen.add(places)
            lengths.append(size)
    return lengths


def slowly_next(text: Sequence[int], so_far: Sequence[int]) -> tuple[int, float] | None:
    """The most frequent continuation of `so_far`, the latest of equals, and its share; where it stands at the text's
    end alone, that of its longest ending that occurred elsewhere.
    """
    for first in range(len(so_far)):
        part = so_far[first:]
        following: dict[int, list[int]] = {}
        for end in occurrences(text, part):
            if end < len(text):
                following.setdefault(text[end], []).append(end)
        if following:
            token = max(following, key=lambda t: (len(following[t]), following[t][-1]))
            return token, len(following[token]) / sum(map(len, following.values()))
    return None


def slow_suffix_tree(text: list[int], *, k: int, per_match: float, endings: int, least: float):
    best: tuple[float, list[int]] = (0.0, [])
    for length in repeated_endings(text)[:endings]:
        drafted: list[int] = []
        chance, expected = 1.0, 0.0
        while len(drafted) < min(k, max(1, int(per_match * length))):
            found = slowly_next(text, [*text[-length:], *drafted])
            if found is None or chance * found[1] < least:
                break
            chance *= found[1]
            drafted.append(found[0])
            expected += chance
        if expected > best[0]:
            best = (expected, drafted)
    return best[1]


@settings(max_examples=200, deadline=None)
@given(
    TEXTS, st.lists(st.integers(1, 6), min_size=1, max_size=12), st.sampled_from([0.5, 1.0, 3.0]), st.integers(1, 3),
    st.sampled_from([0.0, 0.3, 0.6]),
)  # fmt: skip
def test_the_suffix_tree_is_the_slow_one(
    tokens: list[int], steps: list[int], per_match: float, endings: int, least: float
) -> None:
    strategy = ssd_lab.strategies()["suffix_tree"](k=5, per_match=per_match, endings=endings, least_probability=least)
    lengths = [n for n in (sum(steps[: i + 1]) for i in range(len(steps))) if n <= len(tokens)]
    options = {"k": 5, "per_match": per_match, "endings": endings, "least": least}
    assert growing(strategy, tokens, steps) == [slow_suffix_tree(tokens[:length], **options) for length in lengths]


def test_the_more_frequent_continuation_wins_over_the_latest() -> None:
    text = [1, 2, 3, 8, 1, 2, 3, 9, 1, 2, 4, 7, 1, 2]
    assert guess(ssd_lab.strategies()["suffix_tree"](k=1), text) == [3]
    assert guess(ssd_lab.strategies()["prompt_lookup"](k=1), text) == [4]


def test_a_longer_match_is_trusted_further() -> None:
    strategy = ssd_lab.strategies()["suffix_tree"](k=32, per_match=2.0, endings=1)
    story = list(range(10, 40))
    drafts = {seen: guess(strategy, [*story, 99, *story[:seen]]) for seen in (1, 3, 6)}
    assert {seen: len(draft) for seen, draft in drafts.items()} == {1: 2, 3: 6, 6: 12}
    assert all(draft == story[seen : seen + len(draft)] for seen, draft in drafts.items())


def test_a_guess_ends_where_the_text_used_to_go_different_ways() -> None:
    ways = [token for way in range(5) for token in (1, 2, 3, 50 + way)]
    strategy = ssd_lab.strategies()["suffix_tree"](k=8, per_match=8, endings=1, least_probability=0.3)
    assert guess(strategy, [*ways, 1, 2]) == [3]


def test_a_text_that_repeats_itself_is_guessed_to_go_on() -> None:
    assert guess(ssd_lab.strategies()["suffix_tree"](k=7), [4, 5] * 6) == [4, 5, 4, 5, 4, 5, 4]


def test_only_what_is_new_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    appended = []
    append = SuffixAutomaton._append
    monkeypatch.setattr(SuffixAutomaton, "_append", lambda self, token: (appended.append(token), append(self, token)))
    strategy, memory = ssd_lab.strategies()["suffix_tree"](), {}
    chance = random.Random(1)
    tokens = [chance.randrange(50) for _ in range(400)]
    for length in range(100, 401, 5):
        guess(strategy, tokens[:length], memory)
    assert appended == tokens
    assert len(memory["suffix_tree"]._next) <= 2 * len(tokens)
