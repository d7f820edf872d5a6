"""Traces with every detail, made by really playing rounds between two small random models: no number is made up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd_lab.trace import Activity, Position, RequestRecord, RoundRecord, SequenceRound, Trace, TreeRecord

WORDS = ("the", " sun", " is", " a", " box", ".", "\n", " of", "<b>", " 4", " go", "s")


class Pair:
    """Target and draft distributions after a context, of which only the last two tokens count."""

    def __init__(self, seed: int, vocab_size: int, agreement: float) -> None:
        self._seed, self._vocab_size, self._agreement = seed, vocab_size, agreement
        self._known: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
        self._scaled: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
        self._orders: dict[tuple[int, ...], list[int]] = {}

    def probs(self, context: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Target and draft probabilities of the next token."""
        key = tuple(context[-2:])
        if key not in self._known:
            rng = np.random.default_rng([self._seed, *key])
            logits = rng.normal(size=self._vocab_size) * 2.5
            noisy = logits + (1 - self._agreement) * rng.normal(size=self._vocab_size) * 2.5
            self._known[key] = _softmax(logits), _softmax(noisy)
        return self._known[key]

    def candidates(self, context: Sequence[int], drafted: int | None) -> list[int]:
        """Tokens by their probability under the draft, the one under verification left out."""
        key = tuple(context[-2:])
        if key not in self._orders:
            self._orders[key] = np.argsort(-self.probs(context)[1], kind="stable").tolist()
        return [token for token in self._orders[key] if token != drafted]

    def used(self, context: Sequence[int], width: int, factor: float | None) -> np.ndarray:
        """The draft's probabilities after Saguaro sampling with the likeliest `width` tokens scaled by `factor`."""
        return self._sampling(context, width, factor)[0]

    def draw(self, context: Sequence[int], width: int, factor: float | None, coin: float) -> int:
        """A token from `used`."""
        draft, sums = self._sampling(context, width, factor)
        return min(int(np.searchsorted(sums, coin)), len(draft) - 1)

    def _sampling(self, context: Sequence[int], width: int, factor: float | None) -> tuple[np.ndarray, np.ndarray]:
        key = (*context[-2:], width)
        if key not in self._scaled:
            draft = self.probs(context)[1]
            if factor is not None:
                draft = draft.copy()
                draft[self.candidates(context, None)[:width]] *= factor
                draft /= draft.sum()
            self._scaled[key] = draft, np.cumsum(draft)
        return self._scaled[key]


def recorded_trace(
    *,
    rounds: int = 12,
    k: int = 4,
    fan_out: Sequence[int] = (3, 2, 2, 1, 1),
    saguaro_c: float | None = None,
    requests: int = 1,
    seed: int = 0,
    vocab_size: int = 32,
    agreement: float = 0.75,
    shown: int = 8,
) -> Trace:
    """An asynchronous run at temperature 1 with coins, ranks, schedules, trees and alternatives.

    saguaro_c: scale the draft's likeliest fan_out[i] tokens at position i by it. shown: tokens in each alternative.
    """
    rng = np.random.default_rng(seed)
    pair = Pair(seed, vocab_size, agreement)
    contexts = {number: [1, 2 + number] for number in range(requests)}
    waiting: dict[int, tuple[bool | None, list[int]]] = {number: (None, []) for number in range(requests)}
    records: list[RoundRecord] = []
    now_s = 0.0
    for index in range(rounds):
        rows = []
        missed = False
        for number, context in contexts.items():
            hit, prepared = waiting[number]
            missed |= hit is False
            row, caught = _play(rng, pair, number, context, hit, prepared, k, fan_out, saguaro_c, shown)
            rows.append(row)
            context += [*row.draft_tokens[: row.num_accepted], row.recovery_token]
            waiting[number] = (caught is not None, caught or [])
        jit_s = 0.004 if missed or not index else 0.0
        start_s, now_s = now_s, now_s + jit_s + 0.010
        activities = [
            Activity("target", "verify", start_s + jit_s, now_s),
            Activity("draft", "tree", start_s + jit_s, now_s - 0.002),
        ]
        if jit_s:
            activities += [
                Activity("draft", "jit", start_s, start_s + jit_s),
                Activity("link", "wait for draft", start_s, start_s + jit_s),
            ]
        records.append(RoundRecord(index, start_s, now_s, rows, activities))
    texts = {str(token): WORDS[token % len(WORDS)] for token in range(vocab_size)}
    made = [
        RequestRecord(number, f"prompt {number} </script>", context[:2], context[2:], "", "length", 0.0, 0.01, now_s,
                      params={"temperature": 1.0})
        for number, context in contexts.items()
    ]  # fmt: skip
    strategy = {"name": "async_tree", "k": k, "saguaro_c": saguaro_c}
    meta = {"strategy": strategy, "exact": True, "device": "cpu", "token_texts": texts}
    return Trace(meta, made, records)


def _play(
    rng: np.random.Generator, pair: Pair, number: int, context: list[int], hit: bool | None, prepared: list[int],
    k: int, fan_out: Sequence[int], saguaro_c: float | None, shown: int,
) -> tuple[SequenceRound, list[int] | None]:  # fmt: skip
    """One round of one sequence, and the tokens that were prepared for its outcome (None: a miss)."""
    drafted: list[int] = list(prepared)
    places, used = [], []
    for place in range(k + 1):
        prefix = [*context, *drafted[:place]]
        if place < k and len(drafted) == place:
            drafted.append(pair.draw(prefix, fan_out[place], saguaro_c, rng.random()))
        places.append(pair.probs(prefix))
        used.append(pair.used(prefix, fan_out[place], saguaro_c))
    accepted, coins = 0, [float(coin) for coin in rng.random(k)]
    tests = [(places[i][0][token], used[i][token]) for i, token in enumerate(drafted)]
    while accepted < k and coins[accepted] * tests[accepted][1] < tests[accepted][0]:
        accepted += 1
    target = places[accepted][0]
    residual = target if accepted == k else np.maximum(target - used[accepted], 0)
    recovery_coin = float(rng.random())
    recovery = min(int(np.searchsorted(np.cumsum(residual / residual.sum()), recovery_coin)), len(residual) - 1)
    tokens, parents, probs = list(drafted), list(range(-1, k - 1)), [float(q) for _, q in tests]
    caught = None
    for prefix, width in enumerate(fan_out):
        before = [*context, *drafted[:prefix]]
        for candidate in pair.candidates(before, drafted[prefix] if prefix < k else None)[:width]:
            chain = [candidate]
            tokens.append(candidate)
            parents.append(prefix - 1)
            probs.append(float(places[prefix][1][candidate]))
            for depth in range(k):
                prepared_after = [before[-1], *chain]
                token = pair.draw(prepared_after, fan_out[depth], saguaro_c, rng.random())
                probs.append(float(pair.used(prepared_after, fan_out[depth], saguaro_c)[token]))
                chain.append(token)
                parents.append(len(tokens) - 1)
                tokens.append(token)
            if prefix == accepted and candidate == recovery:
                caught = chain[1:]
    ranked = pair.candidates([*context, *drafted[:accepted]], drafted[accepted] if accepted < k else None)
    row = SequenceRound(
        request_id=number, position=len(context), draft_tokens=drafted, draft_probs=[float(q) for _, q in tests],
        target_probs=[float(p) for p, _ in tests], num_accepted=accepted, recovery_token=recovery,
        recovery_prob=float(target[recovery]), num_emitted=accepted + 1, origin="hit" if hit else "jit", cache_hit=hit,
        tree=TreeRecord(tokens, parents, probs), coins=coins, recovery_coin=recovery_coin,
        recovery_rank=ranked.index(recovery), fan_out=list(fan_out),
        alternatives=[
            _position(target, raw, used[i] if i < k else None, saguaro_c, shown)
            for i, (target, raw) in enumerate(places)
        ],
    )  # fmt: skip
    return row, caught


def _position(
    target: np.ndarray, raw: np.ndarray, draft: np.ndarray | None, factor: float | None, shown: int
) -> Position:
    tokens = sorted({*np.argsort(-target)[:shown].tolist(), *np.argsort(-raw)[:shown].tolist()})
    return Position(
        tokens,
        target[tokens].tolist(),
        None if draft is None else draft[tokens].tolist(),
        raw[tokens].tolist() if factor is not None and draft is not None else None,
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()
