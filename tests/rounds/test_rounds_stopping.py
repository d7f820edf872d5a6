"""A text ends exactly where it should."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssd_lab.rounds.stopping import StopChecker


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


SPECIAL = {1: "<|end|>", 2: "<|user|>"}


class LettersAndSpecials(Letters):
    """Special tokens are passed over."""

    def push(self, token_id: int) -> str:
        return "" if token_id in SPECIAL else chr(token_id)


def run_specials(*parts: str | int, stops: list[str]) -> tuple[StopChecker, str | None, str]:
    """What was shown, step by step, besides the checker and why it stopped."""
    checker = StopChecker(
        LettersAndSpecials(), stop_token_ids=[], stop_strings=stops, max_tokens=100, special_texts=SPECIAL
    )
    tokens = [token for part in parts for token in ([part] if isinstance(part, int) else map(ord, part))]
    shown = ""
    for token in tokens:
        reason = checker.push(token)
        certain = checker.text if reason else checker.text[: checker.certain_length]
        assert certain.startswith(shown), "what was shown is never taken back"
        shown = certain
        if reason is not None:
            return checker, reason, shown
    return checker, None, shown


def test_a_stop_string_that_is_a_special_tokens_text_stops_there() -> None:
    checker, reason, shown = run_specials("abc", 1, "def", stops=["<|end|>"])
    assert (checker.text, reason, shown) == ("abc", "stop", "abc")


def test_a_stop_string_may_hold_special_tokens_among_other_text() -> None:
    checker, reason, _ = run_specials("say: ok.", 1, "\n", 2, "next", stops=["ok.<|end|>\n<|user|>"])
    assert (checker.text, reason) == ("say: ", "stop")


def test_text_around_a_special_token_that_is_no_stop_stays_whole() -> None:
    checker, reason, shown = run_specials("a", 1, "b", 2, "!", stops=["<|end|>x", "!"])
    assert (checker.text, reason, shown) == ("ab", "stop", "ab")


def test_special_tokens_that_no_stop_string_names_are_not_in_its_way() -> None:
    checker, reason, _ = run_specials("ST", 2, "OP", stops=["STOP", "<|end|>"])
    assert (checker.text, reason) == ("", "stop")


def test_the_same_text_in_ordinary_tokens_stops_too() -> None:
    checker, reason, _ = run_specials("abc<|end|>def", stops=["<|end|>"])
    assert (checker.text, reason) == ("abc", "stop")
