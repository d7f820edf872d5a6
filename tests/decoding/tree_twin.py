"""Slow, obviously right twins of tree verification, and the law of what it emits, in closed form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

Law = dict[tuple[int, ...], float]
Distribution = Callable[[tuple[int, ...]], Sequence[float]]


def without(q: Sequence[float], token: int) -> list[float]:
    left = [0.0 if index == token else value for index, value in enumerate(q)]
    total = sum(left)
    return [value / total for value in left] if total > 0 else left


def leftover(p: Sequence[float], q: Sequence[float]) -> list[float]:
    left = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
    total = sum(left)
    return [value / total for value in left] if total > 0 else list(p)


def verify(
    target: Sequence[Sequence[float]],
    draft: Sequence[Sequence[float]],
    tokens: Sequence[int],
    parents: Sequence[int],
    valid: Sequence[bool],
    accept: Sequence[Sequence[float]],
    recover: Sequence[float],
) -> tuple[list[int], int]:
    """One sequence, one step after another: the accepted nodes and the recovery token."""
    node, path = -1, []
    while True:
        p, q = list(target[node + 1]), list(draft[node + 1])
        children = [index for index, parent in enumerate(parents) if parent == node]
        for place, child in enumerate(children):
            if not valid[child]:
                continue
            if accept[len(path)][place] * q[tokens[child]] < p[tokens[child]]:
                path.append(child)
                node = child
                break
            p, q = leftover(p, q), without(q, tokens[child])
        else:
            return path, invert(p, recover[len(path)])


def invert(p: Sequence[float], number: float) -> int:
    below, total = 0.0, sum(p)
    for token, value in enumerate(p):
        below += value
        if below > number * total:
            return token
    return max(token for token, value in enumerate(p) if value > 0)


def emitted_law(
    p: Distribution,
    q: Distribution,
    parents: Sequence[int],
    *,
    remove: Callable = without,
    leave: Callable = leftover,
    chance: Callable[[float, float], float] = lambda p, q: 1.0 if q <= 0 else min(1.0, p / q),
) -> Law:
    """Probability of each emitted text (accepted tokens, then the recovery token), over every draw and every coin.

    p, q: the target's and the draft's distribution after a text. Children are drawn without replacement; the three
    rules are arguments so that a wrong one can be planted.
    """
    law: Law = defaultdict(float)

    def at(node: int, text: tuple[int, ...], weight: float) -> None:
        children = [index for index, parent in enumerate(parents) if parent == node]

        def child(place: int, p_left: Sequence[float], drawn_from: Sequence[float], q_left: Sequence[float], w: float):
            if w == 0:
                return
            if place == len(children) or sum(drawn_from) <= 0:
                for token, value in enumerate(p_left):
                    law[(*text, token)] += w * value
                return
            for token, drawn in enumerate(drawn_from):
                if drawn <= 0:
                    continue
                stays = chance(p_left[token], q_left[token])
                if stays > 0:
                    at(children[place], (*text, token), w * drawn * stays)
                if stays < 1:
                    child(
                        place + 1, leave(p_left, q_left), without(drawn_from, token), remove(q_left, token),
                        w * drawn * (1 - stays),
                    )  # fmt: skip

        child(0, list(p(text)), list(q(text)), list(q(text)), weight)

    at(-1, (), 1.0)
    return dict(law)


def first_tokens(law: Law, length: int, vocab: int, p: Distribution) -> Law:
    """The law of the first `length` tokens of the text, later ones drawn from the target as the next rounds would."""
    first: Law = defaultdict(float)

    def extend(text: tuple[int, ...], weight: float) -> None:
        if len(text) >= length:
            first[text[:length]] += weight
            return
        for token in range(vocab):
            extend((*text, token), weight * p(text)[token])

    for text, weight in law.items():
        extend(text, weight)
    return dict(first)


def target_law(length: int, vocab: int, p: Distribution) -> Law:
    """The same under autoregressive decoding."""
    return first_tokens({(): 1.0}, length, vocab, p)


def distance(one: Law, other: Law) -> float:
    """Total variation."""
    return sum(abs(one.get(text, 0.0) - other.get(text, 0.0)) for text in {*one, *other}) / 2
