"""The terminal summary says what was drafted, kept and added."""

from __future__ import annotations

from trace_samples import async_trace, sequence_round

from ssd_lab.trace import Trace, round_line, sequence_summary


def decode(token_ids):
    words = {10: "the", 11: " sun", 12: "\n", 99: " a"}
    return "".join(words[t] for t in token_ids)


def test_a_round_that_began_with_a_hit():
    line = round_line(12, sequence_round(1, origin="hit", cache_hit=True), decode)
    assert line == r"round 12: drafted |the| sun|\n| accepted 1, recovery ' a' (hit)"


def test_a_miss_names_its_fallback():
    assert round_line(0, sequence_round(1, origin="jit", cache_hit=False), decode).endswith("(miss, jit)")


def test_all_accepted_brings_a_bonus_token_and_a_stop_drops_tokens():
    line = round_line(0, sequence_round(3, num_emitted=1), decode)
    assert line.endswith("accepted 3, bonus ' a' (draft), 3 not emitted")


def test_autoregressive_rounds_have_only_their_token():
    assert round_line(3, sequence_round(0, k=0, origin="none"), decode) == "round 3: recovery ' a'"


def test_one_line_for_each_round_of_the_sequence():
    assert len(sequence_summary(async_trace(), 1, decode).splitlines()) == 3
    assert sequence_summary(Trace({}), 1, decode) == "no rounds recorded for request 1"
