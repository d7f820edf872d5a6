"""A text ends exactly where it should."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssd_lab.engine.stopping import StopChecker


class Letters:
    """Token id = code point."""

    def push(self, token_id: int) -> str:
        return chr(token_id)

    def flush(self) -> str:
        return ""


def run(text: str, **settings: object) -> tuple[StopChecker, str | None, int]:
    options = {"stop_token_ids": [], "stop_strings": [], "max_tokens": 100, **settings}
    checker = StopChecker(Letters(), **options)
    for count, letter in enumerate(text, start=1):
        reason = checker.push(ord(letter))
        if reason is not None:
            return checker, reason, count
    return checker, None, len(text)


def test_a_stop_token_ends_the_text_and_is_not_part_of_it() -> None:
    checker, reason, count = run("abc.def", stop_token_ids=[ord(".")])
    assert (checker.text, reason, count) == ("abc", "stop", 4)


def test_a_stop_string_over_several_tokens_is_cut_off() -> None:
    checker, reason, count = run("hello STOP more", stop_strings=["STOP"])
    assert (checker.text, reason, count) == ("hello ", "stop", 10)


def test_the_earliest_of_several_stop_strings_counts() -> None:
    checker, _, _ = run("ab<<cd", stop_strings=["<<cd", "b<"])
    assert checker.text == "a"


def test_max_tokens_ends_the_text_with_its_last_token() -> None:
    checker, reason, count = run("abcdef", max_tokens=4)
    assert (checker.text, reason, count) == ("abcd", "length", 4)


@given(
    text=st.text(alphabet="ab!", max_size=40),
    stops=st.lists(st.text(alphabet="ab!", min_size=1, max_size=4), max_size=3),
)
def test_what_was_shown_is_never_taken_back(text: str, stops: list[str]) -> None:
    checker = StopChecker(Letters(), stop_token_ids=[], stop_strings=stops, max_tokens=100)
    shown = ""
    for letter in text:
        ended = checker.push(ord(letter)) is not None
        certain = checker.text if ended else checker.text[: checker.certain_length]
        assert certain.startswith(shown)
        shown = certain
        if ended:
            break
    first = min((text.find(stop) for stop in stops if stop in text), default=None)
    if first is None:
        assert checker.text == text
    else:
        assert not any(stop in checker.text for stop in stops)
