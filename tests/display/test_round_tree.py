"""Rounds drawn as lines: marks of what was kept, branches by accepted length, trees with their forks."""

from __future__ import annotations

from ssd_lab.display.round_tree import HAPPENED, MOST_LINES, last_drawn, round_lines
from ssd_lab.trace import RoundRecord, SequenceRound, Trace, TreeRecord

TEXTS = {str(number): word for number, word in enumerate(["the", "sun", "is", "a", "red", "\x1b[31m"])}


def record(*, tree: TreeRecord | None = None, accepted: int = 1, origin: str = "hit", **more: object) -> SequenceRound:
    return SequenceRound(
        request_id=0, position=9, draft_tokens=[0, 1], draft_probs=[0.9, 0.5], target_probs=[0.8, 0.1],
        num_accepted=accepted, recovery_token=2, recovery_prob=0.4, num_emitted=accepted + 1, origin=origin, tree=tree,
        **more,
    )  # fmt: skip


def test_a_chain_says_what_was_kept_and_what_the_target_said():
    first, *lines = round_lines(record(), TEXTS)
    assert first == "2 draft tokens from the speculation cache (hit), 1 kept, recovery token 'is'"
    assert lines[2].split() == ["✓", "'the'", "0.90", "0.80"]
    assert lines[3].split() == ["✗", "'sun'", "0.50", "0.10"]
    assert "bonus token" in round_lines(record(accepted=2), TEXTS)[0]
    assert "(miss, jit)" in round_lines(record(origin="jit", cache_hit=False), TEXTS)[0]


def test_prepared_branches_stand_by_accepted_length_and_the_real_one_is_marked():
    tree = TreeRecord(
        tokens=[0, 1, 3, 4, 2, 3], parents=[-1, 0, -1, 2, 0, 4], draft_probs=[0.9, 0.5, 0.3, 0.2, 0.6, 0.1]
    )
    lines = round_lines(record(tree=tree), TEXTS)
    at = lines.index("  ├─ after 0 kept")
    assert lines[at + 1 :] == ["  │  └─ 'a' 0.30 → 'red'", "  └─ after 1 kept", f"     └─ 'is' 0.60 → 'a'  {HAPPENED}"]


def test_a_verified_tree_shows_forks_probabilities_and_the_kept_path():
    tree = TreeRecord(tokens=[0, 1, 3], parents=[-1, 0, 0], draft_probs=[0.9, 0.5, 0.3], target_probs=[0.8, 0.1, None])
    assert round_lines(record(tree=tree, origin="tree"), TEXTS)[3:] == [
        "  └─ 'the' 0.90 0.80 ✓", "     ├─ 'sun' 0.50 0.10", "     └─ 'a' 0.30",
    ]  # fmt: skip


def test_unknown_tokens_and_control_characters_are_written_out():
    lines = round_lines(record(), {"0": TEXTS["5"]})
    assert "\x1b" not in "".join(lines)
    assert "#2" in lines[0]


def test_a_large_tree_is_cut_and_says_so():
    count = MOST_LINES + 5
    tree = TreeRecord(tokens=[0] * count, parents=[-1] * count, draft_probs=[0.1] * count, target_probs=[0.1] * count)
    assert round_lines(record(tree=tree, accepted=0), TEXTS)[-1] == "  … 5 more lines"


def test_the_last_round_with_a_tree_is_drawn():
    tree = TreeRecord(tokens=[0], parents=[-1], draft_probs=[0.1])
    rounds = [RoundRecord(0, 0, 1, [record(tree=tree)]), RoundRecord(1, 1, 2, [record()])]
    assert last_drawn(Trace(meta={}, rounds=rounds)) == 0
    assert last_drawn(Trace(meta={}, rounds=rounds[1:])) == 0
    assert last_drawn(Trace(meta={})) is None
