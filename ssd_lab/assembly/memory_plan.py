"""How a device's memory is shared out, before anything is allocated: pure arithmetic.

Weights, position tables, what the largest steps hold and a reserve for captured graphs come first; KV blocks get the
rest. What does not fit is refused with what is missing and what would help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ssd_lab.errors import CacheCapacityError, ConfigError

USABLE_SHARE = 0.95  # of the free memory; allocators round up and libraries keep buffers of their own
HOST_CACHE_SHARE = 0.25  # of a machine's free memory, for KV blocks on a CPU, where num_blocks is not given
SHORT_TOKENS = 1024  # what every sequence of a batch but one is promised where the full length was nobody's wish


@dataclass(frozen=True)
class CacheRequest:
    """The KV blocks that an engine asks for.

    block_bytes: one block of the target, and of a draft on the same device that mirrors it. reserved: positions behind
    a sequence's tokens that a round may write. num_blocks: None takes those of max_batch sequences of full length, or
    what fits. may_cut: nobody chose max_model_len, and a shorter one will do.
    """

    block_bytes: int
    block_size: int
    max_model_len: int
    max_batch: int
    reserved: int = 0
    num_blocks: int | None = None
    may_cut: bool = False

    def blocks_for(self, tokens: int) -> int:
        """KV blocks of one sequence of so many tokens."""
        return -(-(tokens + self.reserved) // self.block_size)

    @property
    def blocks_per_sequence(self) -> int:
        """KV blocks of one sequence of full length."""
        return self.blocks_for(self.max_model_len)

    @property
    def wanted_blocks(self) -> int:
        """Blocks of all sequences at full length, and the one that padding rows write to."""
        return self.num_blocks or self.max_batch * self.blocks_per_sequence + 1

    def longest_in(self, num_blocks: int) -> int:
        """Tokens of the longest sequence that so many blocks hold, beside the one of padding rows."""
        return (num_blocks - 1) * self.block_size - self.reserved


@dataclass(frozen=True)
class MemoryPlan:
    """Who gets how much. parts: name -> bytes, in the order in which they are handed out; the last are KV blocks.

    cache: what was asked for, with the max_model_len that was settled. num_blocks: KV blocks of the target; a draft on
    the same device mirrors them. free_bytes: what there was to share (0: unknown). notes: what was decided for the
    caller. others: the parts of the target's other ranks, or of a draft on a device of its own, by who and where.
    """

    parts: dict[str, int]
    cache: CacheRequest
    num_blocks: int
    free_bytes: int
    notes: tuple[str, ...] = ()
    others: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest sequence."""
        return self.cache.max_model_len

    @property
    def used_bytes(self) -> int:
        """All parts."""
        return sum(self.parts.values())

    @property
    def full_sequences(self) -> float:
        """How many sequences of full length the blocks hold."""
        return (self.num_blocks - 1) / self.cache.blocks_per_sequence

    def beside(self, name: str, other: MemoryPlan) -> MemoryPlan:
        """With the plan of another device, where a cache of as many blocks has to fit: as much as fits on both."""
        num_blocks = min(self.num_blocks, other.num_blocks)
        cache = replace(self.cache, max_model_len=min(self.max_model_len, other.max_model_len))
        parts = self.parts | {"KV blocks": num_blocks * self.cache.block_bytes}
        theirs = other.parts | {"KV blocks": num_blocks * other.cache.block_bytes}
        notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
        return replace(
            self, parts=parts, cache=cache, num_blocks=num_blocks, notes=notes, others={**self.others, name: theirs}
        )

    def __str__(self) -> str:
        remarks = {
            "KV blocks": f"{self.num_blocks:,} of {self.cache.block_size} tokens: "
            f"{self.full_sequences:.1f} sequences of {self.max_model_len:,}",
            "left free": f"of {_gb(self.free_bytes)}",
        }
        left = {"left free": self.free_bytes - self.used_bytes} if self.free_bytes else {}
        shown = {name: size for name, size in (self.parts | left).items() if size}
        lines = [f"{name:<18} {size / 1e9:>9.3f} GB  {remarks.get(name, '')}".rstrip() for name, size in shown.items()]
        for name, parts in self.others.items():
            lines.append(f"{name}: {', '.join(f'{part} {_gb(size)}' for part, size in parts.items() if size)}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def as_dict(self) -> dict[str, Any]:
        """For a trace or JSON."""
        return {
            "parts": dict(self.parts),
            "num_blocks": self.num_blocks,
            "max_model_len": self.max_model_len,
            "free_bytes": self.free_bytes,
            "notes": list(self.notes),
            "others": {name: dict(parts) for name, parts in self.others.items()},
        }


def plan_memory(parts: dict[str, int], cache: CacheRequest, free_bytes: int) -> MemoryPlan:
    """Share out the memory of a device. parts: name -> bytes of all but the KV blocks.

    Where `max_model_len` may be cut, one sequence of full length and max_batch - 1 short ones fit. Raises ConfigError
    if the parts do not fit, CacheCapacityError if the blocks asked for, or those of one sequence, do not fit beside
    them.
    """
    left = int(free_bytes * USABLE_SHARE) - sum(parts.values())
    fitting = max(0, left) // cache.block_bytes
    settled = _cut(cache, fitting) if cache.may_cut else cache
    needed = cache.num_blocks or settled.blocks_per_sequence + 1
    if left < 0 or needed > fitting:
        raise _refusal(parts, settled, needed, fitting, free_bytes)
    plan = _plan(parts, settled, min(settled.wanted_blocks, fitting), free_bytes)
    if settled == cache:
        return plan
    note = (
        f"the model's {cache.max_model_len:,} positions do not fit: max_model_len is {settled.max_model_len:,}, so "
        "that one such sequence and short ones do; give max_model_len to choose yourself"
    )
    return replace(plan, notes=(note,))


def plan_on_host(parts: dict[str, int], cache: CacheRequest, free_bytes: int) -> MemoryPlan:
    """For a CPU, where nothing is refused: blocks take a share of the free memory at most. free_bytes: 0 if unknown."""
    num_blocks = cache.wanted_blocks
    if cache.num_blocks is None and free_bytes:
        num_blocks = max(2, min(num_blocks, int(free_bytes * HOST_CACHE_SHARE / cache.block_bytes)))
    return _plan(parts, cache, num_blocks, free_bytes)


def _plan(parts: dict[str, int], cache: CacheRequest, num_blocks: int, free_bytes: int) -> MemoryPlan:
    return MemoryPlan(parts | {"KV blocks": num_blocks * cache.block_bytes}, cache, num_blocks, free_bytes)


def _cut(cache: CacheRequest, fitting: int) -> CacheRequest:
    """With the longest sequence that fits beside short ones; shorter than those it is not made."""
    longest = cache.longest_in(fitting - (cache.max_batch - 1) * cache.blocks_for(SHORT_TOKENS))
    return replace(cache, max_model_len=min(cache.max_model_len, max(SHORT_TOKENS, longest)))


def _refusal(
    parts: dict[str, int], cache: CacheRequest, needed: int, fitting: int, free_bytes: int
) -> ConfigError | CacheCapacityError:
    """What does not fit, by how much, and what would help."""
    usable, wanted = int(free_bytes * USABLE_SHARE), dict(parts)
    kind: type[ConfigError | CacheCapacityError] = CacheCapacityError
    longest = cache.longest_in(fitting)
    if sum(parts.values()) > usable:
        kind = ConfigError
        helps = "lower max_batch, or the strategy's k or fan-out; or " if "workspace" in parts else ""
    elif cache.num_blocks is not None:
        wanted[f"{needed:,} KV blocks (num_blocks)"] = needed * cache.block_bytes
        helps = f"lower num_blocks (at most {fitting:,} blocks fit), or "
    else:
        wanted[f"one sequence of {cache.max_model_len:,} tokens"] = needed * cache.block_bytes
        helps = f"lower max_model_len (at most {longest:,} fit), or " if longest > 1 else ""
    listed = ", ".join(f"{name} {_gb(size)}" for name, size in wanted.items() if size)
    return kind(
        f"{listed} do not fit into {_gb(free_bytes)} of free memory, of which {_gb(usable)} may be used: "
        f"{_gb(sum(wanted.values()) - usable)} are missing; {helps}take smaller models, dtype bfloat16 in place of "
        "float32, or a larger device"
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
