"""Where the two messages of a round stand in shared memory: places of fixed size, whatever the batch."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from ssd_lab.execution.host_copy import is_on_host
from ssd_lab.execution.stopwatch import settled
from ssd_lab.links.channel import dumped
from ssd_lab.links.messages import RoundMessage
from ssd_lab.links.shared_memory import WORD, Spans
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import KnownState

ASKED, ANSWERED, CANCEL = 0, 8, 16  # words of the flags, each in a cache line of its own
_OUTCOME, _SPECULATION = 24, 40  # words where the numbers that describe each message begin
_HEAD_BYTES = 64 * WORD
BESIDE = -1  # in place of a number of bytes: the rest travels over the socket

ORIGINS = ("none", "hit", "jit", "fast", "draft", "tree", "custom")
_KNOWN = frozenset(ORIGINS)
_HITS: tuple[bool | None, ...] = (None, False, True)
_ALL = tuple(field.name for field in fields(Proposal))
_MAY_REMAIN = tuple(name for name in _ALL if name not in ("tokens", "num_drafted", "origins", "cache_hits"))
_PLACED, _HAS_PROBS, _HAS_TOKEN_PROBS, _HAS_PREDICTED = 1, 2, 4, 8


@dataclass(frozen=True)
class SlotSizes:
    """rows: the most of a round. tokens: the most draft tokens of a row. vocab: length of a distribution; a round whose
    distributions would take more than `most_bytes` sends them over the socket. rest_bytes: for what has no place of its
    own, such as recorded trees.
    """

    rows: int
    tokens: int
    vocab: int
    rest_bytes: int = 1 << 22
    most_bytes: int = 1 << 30

    @property
    def probs(self) -> int:
        """Numbers in the place for distributions."""
        size = self.rows * self.tokens * self.vocab
        return size if 4 * size <= self.most_bytes else 0


@dataclass(frozen=True)
class Travel:
    """When a round's two messages were written and taken, in seconds of the clock that all processes of a host share
    (CLOCK_MONOTONIC, `time.perf_counter`).
    """

    asked_s: float
    taken_s: float
    answered_s: float
    received_s: float


class Slots:
    """Reads and writes the messages; whose turn it is, is the link's matter.

    Of memory that is shared only copies are handed out, since the other side will write there again.
    """

    def __init__(self, memory: memoryview, sizes: SlotSizes) -> None:
        self.sizes = sizes
        self._memory, self._used = memory, _HEAD_BYTES
        head = np.frombuffer(memory, np.int64, _HEAD_BYTES // WORD)
        self._outcome, self._speculation = head[_OUTCOME : _OUTCOME + 8], head[_SPECULATION : _SPECULATION + 8]
        rows, tokens = sizes.rows, sizes.tokens
        self._state = self._part(np.int64, 4 * rows)
        self._answer_at = self._used
        self._columns = self._part(np.int64, 3 * rows)
        self._predicted = self._part(np.float64, rows)
        self._tokens = self._part(np.int64, rows * tokens)
        self._token_probs = self._part(np.float32, rows * tokens)
        self._probs_at = self._used
        self._probs = self._part(np.float32, sizes.probs)
        self._rest_at = self._used
        self._rest_out = self._rest()
        self._rest_back = self._rest()

    @staticmethod
    def bytes_for(sizes: SlotSizes) -> int:
        """Memory for slots of these sizes."""
        parts = (7 * WORD * sizes.rows, WORD * sizes.rows, 12 * sizes.rows * sizes.tokens, 4 * sizes.probs)
        return _HEAD_BYTES + sum(parts) + 2 * sizes.rest_bytes + 16 * WORD

    def spans(self, flag: int) -> Spans:
        """Where the message under this flag is: as much in every round, then what this one has besides."""
        if flag == ASKED:
            besides = self._rest_at, self._rest_at + int(self._outcome[3])
            return [(_OUTCOME * WORD, _SPECULATION * WORD), (_HEAD_BYTES, self._answer_at), besides]
        batch, k, mask, length = self._speculation[:4].tolist()
        probs = 4 * batch * k * self.sizes.vocab if mask & _HAS_PROBS else 0
        rest_at = self._rest_at + self.sizes.rest_bytes
        return [
            (_SPECULATION * WORD, _HEAD_BYTES),
            (self._answer_at, self._probs_at),
            (self._probs_at, self._probs_at + probs),
            (rest_at, rest_at + max(0, length)),
        ]

    def write_outcome(self, message: Any, posted: int) -> bool:
        """False if the message has no place here. posted: messages over the socket that must be read before it."""
        if type(message) is not RoundMessage or not isinstance(message.state, KnownState):
            return False
        batch = len(message.num_accepted)
        rest = {
            name: value
            for name in ("elsewhere", "away", "new_tokens")
            if not _is_empty(value := getattr(message, name))
        }
        data = dumped(rest) if rest else b""
        if batch > self.sizes.rows or len(data) > len(self._rest_out):
            return False
        place = self._state[: 4 * batch].reshape(4, batch)
        place[:3], place[3] = message.state.tensor.numpy(), message.num_accepted.numpy()
        self._rest_out[: len(data)] = data
        told = message.round_s
        self._outcome[:5] = (posted, message.control, batch, len(data), told is not None)
        self._outcome[5:7].view(np.float64)[:] = (told or 0.0, time.perf_counter())
        return True

    @property
    def posted(self) -> int:
        """How many messages over the socket come before the outcome."""
        return int(self._outcome[0])

    def read_outcome(self) -> RoundMessage:
        """The round's message, in memory of its own."""
        taken_s = time.perf_counter()
        _, control, batch, length, is_told = self._outcome[:5].tolist()
        round_s, asked_s = self._outcome[5:7].view(np.float64).tolist()
        self._speculation[4:6].view(np.float64)[:] = (asked_s, taken_s)
        state = torch.from_numpy(self._state[: 4 * batch].reshape(4, batch).copy())
        rest = pickle.loads(self._rest_out[:length]) if length else {}
        return RoundMessage(control, KnownState(state[:3]), state[3], round_s=round_s if is_told else None, **rest)

    def write_speculation(self, proposal: Proposal) -> dict[str, Any] | None:
        """What has no room and must follow over the socket, by the names of the proposal's fields; None if all has."""
        placed = self._place(proposal)
        names = _MAY_REMAIN if placed else _ALL
        rest = {
            name: value
            for name in names
            if name not in placed and not (_is_empty(value := getattr(proposal, name)) and placed)
        }
        data = dumped(rest) if rest else b""
        fits = len(data) <= len(self._rest_back)
        if fits:
            self._rest_back[: len(data)] = data
        self._speculation[3] = len(data) if fits else BESIDE
        self._speculation[6:7].view(np.float64)[0] = time.perf_counter()
        return None if fits else rest

    def _place(self, proposal: Proposal) -> set[str]:
        """Write what has a place of its own; returns the names of these fields."""
        tokens, sizes = proposal.tokens, self.sizes
        batch, k = tokens.shape
        if batch > sizes.rows or k > sizes.tokens or not _KNOWN.issuperset(proposal.origins):
            self._speculation[:3] = 0
            return set()
        placed, mask = {"tokens", "num_drafted", "origins", "cache_hits"}, _PLACED
        _write(self._tokens, tokens)
        self._columns[: 3 * batch] = [
            *proposal.num_drafted,
            *map(ORIGINS.index, proposal.origins),
            *map(_HITS.index, proposal.cache_hits),
        ]
        probs, token_probs, predicted = proposal.probs, proposal.token_probs, proposal.predicted_hits
        if probs is not None and probs.dtype == torch.float32 and probs.shape[1:] == (k, sizes.vocab) and sizes.probs:
            _write(self._probs, probs)
            placed, mask = placed | {"probs"}, mask | _HAS_PROBS
        if token_probs is not None and token_probs.dtype == torch.float32:
            _write(self._token_probs, token_probs)
            placed, mask = placed | {"token_probs"}, mask | _HAS_TOKEN_PROBS
        if predicted is not None:
            self._predicted[:batch] = [np.nan if one is None else one for one in predicted]
            placed, mask = placed | {"predicted_hits"}, mask | _HAS_PREDICTED
        self._speculation[:3] = (batch, k, mask)
        return placed

    @property
    def has_beside(self) -> bool:
        """Does a part of the speculation come over the socket?"""
        return int(self._speculation[3]) == BESIDE

    def read_speculation(self, beside: dict[str, Any] | None = None) -> tuple[Proposal, Travel]:
        """The answer, in memory of its own, and when its messages travelled. beside: what came over the socket."""
        batch, k, mask, length = self._speculation[:4].tolist()
        rest = beside if beside is not None else pickle.loads(self._rest_back[:length]) if length else {}
        asked_s, taken_s, answered_s = self._speculation[4:7].view(np.float64).tolist()
        travel = Travel(asked_s, taken_s, answered_s, time.perf_counter())
        if not mask:
            return Proposal(**rest), travel
        numbers, origins, hits = self._columns[: 3 * batch].reshape(3, batch).tolist()
        predicted = [None if one != one else one for one in self._predicted[:batch].tolist()]
        placed: dict[str, Any] = {
            "tokens": _read(self._tokens, batch, k),
            "num_drafted": numbers,
            "probs": _read(self._probs, batch, k, self.sizes.vocab) if mask & _HAS_PROBS else None,
            "origins": [ORIGINS[origin] for origin in origins],
            "cache_hits": [_HITS[hit] for hit in hits],
            "token_probs": _read(self._token_probs, batch, k) if mask & _HAS_TOKEN_PROBS else None,
            "predicted_hits": predicted if mask & _HAS_PREDICTED else None,
        }
        return Proposal(**{**placed, **rest}), travel

    def _part(self, kind: Any, count: int) -> np.ndarray:
        part = np.frombuffer(self._memory, kind, count, self._used)
        self._used += -(-part.nbytes // WORD) * WORD
        return part

    def _rest(self) -> memoryview:
        start = self._used
        self._used += self.sizes.rest_bytes
        return self._memory[start : self._used]


def portable(proposal: Proposal) -> Proposal:
    """The same, to be read in another process: nothing of a device is left but in the tensors, which are copied."""
    if all(is_on_host(tensor) for tensor in proposal.tensors()):
        return proposal
    trees = [tree.settled() for tree in proposal.previous_trees]
    return replace(proposal, previous_trees=trees, activities=[settled(span) for span in proposal.activities])


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, dict | list) and not value)


def _write(place: np.ndarray, tensor: torch.Tensor) -> None:
    """Copy a tensor to the beginning of the place, from whatever device it is on."""
    part = place[: tensor.numel()].reshape(tensor.shape)
    if is_on_host(tensor):
        part[...] = tensor.numpy()
    else:
        torch.from_numpy(part).copy_(tensor)


def _read(place: np.ndarray, *shape: int) -> torch.Tensor:
    count = 1
    for size in shape:
        count *= size
    return torch.from_numpy(place[:count].copy()).view(shape)
