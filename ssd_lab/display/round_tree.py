"""One round of one request as lines of text: the chain or tree that was verified, and what was prepared meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ssd_lab.trace.records import SequenceRound, TreeRecord
from ssd_lab.trace.trace import Trace

KEPT, REFUSED, HAPPENED = "✓", "✗", "◀ what happened"
MOST_LINES = 60  # of a tree

_Said = Callable[[int], str]


@dataclass(frozen=True)
class Node:
    """A line, and those below it."""

    label: str
    children: tuple[Node, ...] = ()


def last_drawn(trace: Trace) -> int | None:
    """The number in the trace of the last round that has a tree, else of the last one; None without rounds."""
    with_tree = [number for number, one in enumerate(trace.rounds) if any(row.tree for row in one.sequences)]
    return with_tree[-1] if with_tree else len(trace.rounds) - 1 if trace.rounds else None


def round_lines(record: SequenceRound, texts: Mapping[str, str]) -> list[str]:
    """The round, top down. texts: of tokens by id, as a trace's `meta["token_texts"]` has them."""

    def said(token: int) -> str:
        return repr(texts.get(str(token), f"#{token}"))

    lines = [*_outcome(record, said)]
    tree = record.tree
    if tree is not None and tree.target_probs is not None:
        lines += ["", "verified tree (draft's probability, the target's):"]
        kept = _kept_nodes(record, tree)
        lines += _drawn([_verified(tree, node, said, kept) for node in _children(tree, -1)])
        return lines
    lines += _chain(record, said)
    if tree is not None:
        lines += ["", "prepared by the draft while that was verified:", *_prepared(record, tree, said)]
    return lines


def _outcome(record: SequenceRound, said: _Said) -> list[str]:
    came = {"hit": "from the speculation cache (hit)", "jit": "by the fallback (jit)", "fast": "by the fallback (fast)"}
    if record.cache_hit is False:
        came = {**came, "jit": "by the fallback (miss, jit)", "fast": "by the fallback (miss, fast)"}
    number = len(record.draft_tokens)
    if not number:
        return [f"nothing drafted; the target says {said(record.recovery_token)}"]
    own = "bonus" if record.num_accepted == number else "recovery"
    kept = f"{record.num_accepted} kept, {own} token {said(record.recovery_token)}"
    return [f"{number} draft tokens {came.get(record.origin, f'({record.origin})')}, {kept}"]


def _chain(record: SequenceRound, said: _Said) -> list[str]:
    """A line for each verified token."""
    if not record.draft_tokens:
        return []
    width = max(len(said(token)) for token in record.draft_tokens)
    lines = ["", "verified chain (draft's probability, the target's):"]
    for place, token in enumerate(record.draft_tokens):
        mark = KEPT if place < record.num_accepted else REFUSED if place == record.num_accepted else " "
        lines.append(
            f"  {mark} {said(token):<{width}}  {record.draft_probs[place]:.2f}  {record.target_probs[place]:.2f}"
        )
    return lines


def _prepared(record: SequenceRound, tree: TreeRecord, said: _Said) -> list[str]:
    """Branches by accepted length: candidate recovery tokens, each with the tokens that were drafted behind it."""
    chain = len(record.draft_tokens) if record.draft_tokens else 0
    nodes = []
    for accepted in range(chain + 1):
        starts = [node for node in _children(tree, accepted - 1) if node >= chain]
        branches = tuple(Node(_branch(record, tree, start, accepted, said)) for start in starts)
        if branches:
            nodes.append(Node(f"after {accepted} kept", branches))
    return _drawn(nodes) or ["  nothing"]


def _branch(record: SequenceRound, tree: TreeRecord, start: int, accepted: int, said: _Said) -> str:
    behind, node = [], start
    while following := _children(tree, node):
        node = following[0]
        behind.append(tree.tokens[node])
    label = f"{said(tree.tokens[start])} {tree.draft_probs[start]:.2f}"
    if behind:
        label += " → " + " ".join(map(said, behind))
    happened = accepted == record.num_accepted and tree.tokens[start] == record.recovery_token
    return f"{label}  {HAPPENED}" if happened else label


def _verified(tree: TreeRecord, node: int, said: _Said, kept: set[int]) -> Node:
    target_prob = tree.target_probs[node] if tree.target_probs is not None else None
    judged = "" if target_prob is None else f" {target_prob:.2f}"
    mark = f" {KEPT}" if node in kept else ""
    label = f"{said(tree.tokens[node])} {tree.draft_probs[node]:.2f}{judged}{mark}"
    return Node(label, tuple(_verified(tree, child, said, kept) for child in _children(tree, node)))


def _kept_nodes(record: SequenceRound, tree: TreeRecord) -> set[int]:
    """The nodes of the accepted path."""
    kept, place = set(), -1
    for token in record.draft_tokens[: record.num_accepted]:
        place = next(child for child in _children(tree, place) if tree.tokens[child] == token)
        kept.add(place)
    return kept


def _children(tree: TreeRecord, parent: int) -> list[int]:
    return [node for node, its in enumerate(tree.parents) if its == parent]


def _drawn(nodes: Sequence[Node]) -> list[str]:
    """A forest with lines from parents to children, cut where it gets too long."""
    lines = list(_branches(nodes, "  "))
    if len(lines) <= MOST_LINES:
        return lines
    return [*lines[:MOST_LINES], f"  … {len(lines) - MOST_LINES} more lines"]


def _branches(nodes: Sequence[Node], before: str) -> list[str]:
    lines: list[str] = []
    for number, node in enumerate(nodes):
        is_last = number == len(nodes) - 1
        lines.append(f"{before}{'└─ ' if is_last else '├─ '}{node.label}")
        lines += _branches(node.children, before + ("   " if is_last else "│  "))
    return lines
