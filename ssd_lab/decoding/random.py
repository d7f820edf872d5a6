"""Random numbers as a function of (request seed, position, purpose): never of the batch, the timing or a global
generator.
"""

from __future__ import annotations

from enum import IntEnum

import torch

_MASK = 0xFFFFFFFF
SIBLING_STRIDE = 2**26  # positions of a text stay below it
MAX_SIBLINGS = 2**32 // SIBLING_STRIDE


class Purpose(IntEnum):
    """What a number decides. Each (position, purpose) of a request is examined once along the text that is kept."""

    DRAFT = 1
    ACCEPT = 2
    RECOVERY = 3
    FALLBACK = 4


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Murmur3's 32-bit finaliser on int64 tensors that hold 32-bit values (public domain, A. Appleby)."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


def uniform(
    seeds: torch.Tensor, positions: torch.Tensor, purpose: Purpose, siblings: torch.Tensor | int = 0
) -> torch.Tensor:
    """Uniform numbers in (0, 1), float32, of the broadcast shape of `seeds`, `positions` and `siblings` (int64).

    siblings: which of several numbers at one position, 0 .. MAX_SIBLINGS - 1. The i-th sibling's counters lie
    SIBLING_STRIDE positions apart, so no two pairs (position, sibling) of a context below that length share one.
    """
    positions = positions + siblings * SIBLING_STRIDE
    low, high = seeds & _MASK, (seeds >> 32) & _MASK
    state = _mix((low + 0x9E3779B9 * int(purpose)) & _MASK)
    state = _mix(state ^ high)
    state = _mix((state + positions * 0x9E3779B1) & _MASK)
    state = _mix((state ^ low) + 0x7F4A7C15 & _MASK)
    return ((state >> 9).to(torch.float32) + 0.5) * 2.0**-23  # at most 1 - 2^-24, which float32 can hold
