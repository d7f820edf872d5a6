"""Running out of memory, told as an error of ours: what was being allocated, how much, what is free, what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ssd_lab.errors import SsdLabError

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")  # of CUDA libraries and of the CPU's allocator


def is_out_of_memory(error: BaseException | None) -> bool:
    """Is this, or what it was raised from, a failed allocation?

    A capture that runs out of memory fails once more when it is ended, so the chain is followed.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def explain_out_of_memory(
    doing: str, raised: type[SsdLabError], *, device: torch.device | str, change: str, wanted_bytes: int | None = None
) -> Iterator[None]:
    """Raise `raised` instead if the block runs out of memory.

    doing: what was going on ("allocating 200 KV blocks"). wanted_bytes: what it needs, if known. change: what to do.
    """
    try:
        yield
    except Exception as error:
        # an explanation from deeper inside knows more than this one
        if getattr(error, "explains_memory", False) or not is_out_of_memory(error):
            raise
        wanted = "" if wanted_bytes is None else f" ({wanted_bytes / 1e9:.2f} GB)"
        explained = raised(f"out of memory while {doing}{wanted}{_free_on(torch.device(device))}: {change}")
        explained.explains_memory = True  # type: ignore[attr-defined]
        raise explained from error


def _free_on(device: torch.device) -> str:
    if device.type != "cuda":
        return f" on {device}"
    try:
        free, total = torch.cuda.mem_get_info(device)
    except (RuntimeError, AssertionError):  # a device in trouble, or none
        return f" on {device}"
    return f"; {free / 1e9:.2f} of {total / 1e9:.2f} GB are free on {device}"
