"""How a device's memory is shared out, before anything is allocated: pure arithmetic.

Weights, tables, the workspace of the largest steps and a reserve for captured graphs come first; KV blocks get the
rest. What does not fit is refused with what would fit, and each such advice was tried by planning it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ssd_lab.assembly.model_demand import ModelDemand
from ssd_lab.errors import CacheCapacityError, ConfigError

USABLE_SHARE = 0.95  # of the free memory; allocators round up and libraries keep buffers of their own
GRAPH_WORKSPACES = 1.5  # kept for graphs: a pool as large as the workspace, and the outputs beside it
GRAPH_SHARE = 0.01  # of the free memory, for the graphs themselves
SHORT_TOKENS = 1024  # what every sequence of a batch but one is promised where the full length was nobody's wish


@dataclass(frozen=True)
class MemoryRequest:
    """What is to share `free_bytes` of one device (0: unknown).

    draft: None if there is none, or it has a device of its own. lookahead: positions beyond max_model_len that a round
    may write. num_blocks: KV blocks asked for; None takes those of max_batch sequences of full length, or what fits.
    graph_bytes: kept for captured graphs. padded_batch: rows that steps really compute for max_batch (0: as many).
    is_graphed: graph_bytes is the default reserve (`with_graph_reserve`).
    """

    free_bytes: int
    target: ModelDemand
    draft: ModelDemand | None
    block_size: int
    max_model_len: int
    max_batch: int
    lookahead: int = 0
    num_blocks: int | None = None
    graph_bytes: int = 0
    padded_batch: int = 0
    is_graphed: bool = False

    @property
    def models(self) -> dict[str, ModelDemand]:
        """By role."""
        return {"target": self.target} if self.draft is None else {"target": self.target, "draft": self.draft}

    @property
    def blocks_per_sequence(self) -> int:
        """KV blocks of one sequence of full length."""
        return -(-(self.max_model_len + self.lookahead) // self.block_size)

    @property
    def wanted_blocks(self) -> int:
        """Blocks of all sequences at full length, and the one that padding rows write to."""
        return self.num_blocks or self.max_batch * self.blocks_per_sequence + 1


@dataclass(frozen=True)
class MemoryPlan:
    """Who gets how much. parts: name -> bytes, in the order in which they are handed out; the last are KV blocks.

    num_blocks: KV blocks of the target; a draft on the same device mirrors them, which block_bytes counts in. notes:
    what was decided for the caller.
    """

    request: MemoryRequest
    parts: dict[str, int]
    num_blocks: int
    block_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def used_bytes(self) -> int:
        """All parts."""
        return sum(self.parts.values())

    @property
    def full_sequences(self) -> float:
        """How many sequences of full length the blocks hold."""
        return (self.num_blocks - 1) / self.request.blocks_per_sequence

    def rows(self) -> list[tuple[str, int, str]]:
        """A small table: what, bytes, remark."""
        remarks = {
            "KV blocks": f"{self.num_blocks:,} of {self.request.block_size} tokens: "
            f"{self.full_sequences:.1f} sequences of {self.request.max_model_len:,}"
        }
        rows = [(name, size, remarks.get(name, "")) for name, size in self.parts.items() if size]
        if self.request.free_bytes:
            left = self.request.free_bytes - self.used_bytes
            rows.append(("left free", left, f"of {_gb(self.request.free_bytes)}"))
        return rows

    def __str__(self) -> str:
        lines = [f"{name:<18} {size / 1e9:>9.3f} GB  {remark}".rstrip() for name, size, remark in self.rows()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def as_dict(self) -> dict[str, Any]:
        """For a trace or JSON."""
        return {
            "parts": dict(self.parts),
            "num_blocks": self.num_blocks,
            "max_model_len": self.request.max_model_len,
            "free_bytes": self.request.free_bytes,
            "notes": list(self.notes),
        }


def plan_memory(request: MemoryRequest) -> MemoryPlan:
    """Share out the memory. Raises ConfigError if not even weights and workspace fit, CacheCapacityError if the blocks
    asked for, or those of one sequence of full length, do not fit beside them; both say what would fit.
    """
    plan = _share_out(request)
    if plan is not None:
        return plan
    fixed, usable = sum(_fixed_parts(request).values()), _usable(request)
    if fixed > usable:
        parts = ", ".join(f"{name} {_gb(size)}" for name, size in _fixed_parts(request).items() if size)
        raise ConfigError(
            f"{parts} do not fit into {_gb(request.free_bytes)} of free memory, of which {_gb(usable)} may be used"
            f"{_advice(request)}"
        )
    fitting = _fitting_blocks(request)
    if request.num_blocks is not None:
        raise CacheCapacityError(
            f"{request.num_blocks:,} KV blocks (num_blocks) take {_gb(request.num_blocks * _block_bytes(request))}, "
            f"and {_gb(usable - fixed)} are free beside weights and workspace: at most {fitting:,} blocks fit"
            f"{_advice(request)}"
        )
    raise CacheCapacityError(
        f"one sequence of {request.max_model_len:,} tokens needs {request.blocks_per_sequence + 1:,} KV blocks, and "
        f"{fitting:,} fit beside weights and workspace{_advice(request)}"
    )


def plan_capped(request: MemoryRequest, *, short_tokens: int = SHORT_TOKENS) -> MemoryPlan:
    """As `plan_memory`, where `max_model_len` is a model's own and may be cut: so that one sequence of full length fits
    beside max_batch - 1 short ones. The plan's request holds the length, and a note says so.
    """
    length = _capped_length(request, short_tokens)
    if length >= request.max_model_len:
        return plan_memory(request)
    capped = plan_memory(replace(request, max_model_len=length))
    note = (
        f"the model's {request.max_model_len:,} positions do not fit: max_model_len is {length:,}, so that one such "
        "sequence and short ones do; give max_model_len to choose yourself"
    )
    return replace(capped, notes=(*capped.notes, note))


def plan_unchecked(request: MemoryRequest, num_blocks: int) -> MemoryPlan:
    """What so many blocks and the rest take, whether or not that fits."""
    block_bytes = _block_bytes(request)
    parts = _fixed_parts(request) | {"KV blocks": num_blocks * block_bytes}
    return MemoryPlan(request, parts, num_blocks, block_bytes)


def with_graph_reserve(request: MemoryRequest) -> MemoryRequest:
    """The same with memory kept for captured graphs: a default by experience, since graphs are captured as rounds
    need them.
    """
    workspace = sum(model.workspace_bytes + model.partial_bytes for model in request.models.values())
    reserve = int(GRAPH_WORKSPACES * workspace + GRAPH_SHARE * request.free_bytes)
    return replace(request, graph_bytes=reserve, is_graphed=True)


def _capped_length(request: MemoryRequest, short_tokens: int) -> int:
    """The longest sequence that fits beside max_batch - 1 short ones and the block of padding rows; shorter than short
    ones it is not made.
    """
    fitting = _fitting_blocks(request)
    short = -(-(short_tokens + request.lookahead) // request.block_size)
    left = fitting - 1 - (request.max_batch - 1) * short
    return min(request.max_model_len, max(short_tokens, left * request.block_size - request.lookahead))


def _share_out(request: MemoryRequest) -> MemoryPlan | None:
    """The plan, or None if it does not fit."""
    fitting = _fitting_blocks(request)
    needed = request.num_blocks or request.blocks_per_sequence + 1
    if fitting < needed:
        return None
    num_blocks = min(request.wanted_blocks, fitting)
    block_bytes = _block_bytes(request)
    parts = _fixed_parts(request) | {"KV blocks": num_blocks * block_bytes}
    return MemoryPlan(request, parts, num_blocks, block_bytes)


def _fixed_parts(request: MemoryRequest) -> dict[str, int]:
    """All but the KV blocks."""
    parts: dict[str, int] = {}
    for role, model in request.models.items():
        parts[f"{role} weights"] = model.weight_bytes
    models = request.models.values()
    parts["position tables"] = sum(model.table_bytes for model in models)
    parts["workspace"] = sum(model.workspace_bytes for model in models)
    parts["attention parts"] = sum(model.partial_bytes for model in models)
    parts["tree branches"] = sum(
        model.scratch_bytes(request.block_size, request.padded_batch or request.max_batch) for model in models
    )
    parts["graphs"] = request.graph_bytes
    return parts


def _usable(request: MemoryRequest) -> int:
    return int(request.free_bytes * USABLE_SHARE)


def _block_bytes(request: MemoryRequest) -> int:
    return sum(model.block_bytes(request.block_size) for model in request.models.values())


def _fitting_blocks(request: MemoryRequest) -> int:
    return max(0, (_usable(request) - sum(_fixed_parts(request).values())) // _block_bytes(request))


def _advice(request: MemoryRequest) -> str:
    """What would fit, as the end of a sentence."""
    offers = [f"{field}={_shown(value)}" for field, value in alternatives(request)]
    return f"; this would fit: {', or '.join(offers)}" if offers else "; take smaller models or a larger device"


def alternatives(request: MemoryRequest) -> list[tuple[str, Any]]:
    """Single changes (field, value) after which the request fits; each was tried."""
    found: list[tuple[str, Any]] = []
    if request.num_blocks is not None:
        fewer = replace(request, num_blocks=_fitting_blocks(request))
        if fewer.num_blocks is not None and fewer.num_blocks > request.blocks_per_sequence and _share_out(fewer):
            found.append(("num_blocks", fewer.num_blocks))
    else:
        length = (_fitting_blocks(request) - 1) * request.block_size - request.lookahead
        if 2 <= length < request.max_model_len and _share_out(replace(request, max_model_len=length)):
            found.append(("max_model_len", length))
    batch = request.max_batch
    while batch > 1:
        batch //= 2
        if _share_out(_with_batch(request, batch)):
            found.append(("max_batch", batch))
            break
    if request.target.dtype == torch.float32 and _share_out(_with_dtype(request, torch.bfloat16)):
        found.append(("dtype", torch.bfloat16))
    return found


def _with_batch(request: MemoryRequest, max_batch: int) -> MemoryRequest:
    """The same with fewer sequences at once."""
    share = max_batch / request.max_batch
    draft = None if request.draft is None else request.draft.scaled(share)
    padded = round(request.padded_batch * share)
    smaller = replace(
        request, max_batch=max_batch, target=request.target.scaled(share), draft=draft, padded_batch=padded
    )
    return with_graph_reserve(smaller) if request.is_graphed else smaller


def _with_dtype(request: MemoryRequest, dtype: torch.dtype) -> MemoryRequest:
    draft = None if request.draft is None else replace(request.draft, dtype=dtype)
    return replace(request, target=replace(request.target, dtype=dtype), draft=draft)


def _shown(value: Any) -> str:
    return str(value).removeprefix("torch.")


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
