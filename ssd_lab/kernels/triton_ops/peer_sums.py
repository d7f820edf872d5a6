"""Sums and gathers over ranks whose kernels write into each other's memory; reference: `models.group.Group`.

Every rank has an inbox that the others write to: `[2, ranks, PROGRAMS, REGION]` words of 8 bytes, half data, half the
number of the exchange. A word arrives as a whole, so that whoever waits for that number in it has its data too: no flag
and no fence. Program p of a kernel exchanges with program p of the same kernel on the other ranks, in a region of its
own, and counts its exchanges itself, on the device, so that replays of a graph count on. An inbox has two halves, used
in turn: whoever has heard of exchange n - 1 from a rank knows that it has read what was sent for exchange n - 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ssd_lab.kernels.product import Product
from ssd_lab.kernels.triton_ops.launching import launch_next, pdl_options, wait_for_previous
from ssd_lab.kernels.triton_ops.partials import load_product, pieces_of

PROGRAMS = 128  # of a kernel at most: all of them run at once on any GPU, as those that wait for each other must
REGION = 4096  # words that a program exchanges at once, at most
SMALL, LARGE = (256, 4), (1024, 4)  # words at once, and warps, of few rows and of many
WORD_BYTES = 8
LOOK = tl.constexpr(256)  # tries between two looks at whether this device has given up
# Tries between two looks at the host's memory, about 10 ms: a look of all programs takes up to 1 ms (one at a time go
# over PCIe), and a rank that is late for having looked must not make the others look.
FAR_LOOK = tl.constexpr(64 * 256)
REGION_WORDS = tl.constexpr(REGION)
_ALL_REGIONS = tl.constexpr(PROGRAMS * REGION)


@dataclass(frozen=True)
class Inboxes:
    """What the kernels of one rank need to reach the others.

    addresses `[size]` int64: of every rank's inbox, as this process sees it. exchanges `[1 + PROGRAMS]` int32: not 0
    once a program has given up, and how many each has made. state `[2]` int32 of the host, which reads and writes it
    meanwhile: not 0 to have all waiting end; 1 + the rank that was waited for in vain. tries: for a word, before it is
    given up. pdl: see `launching`.
    """

    rank: int
    size: int
    addresses: torch.Tensor
    exchanges: torch.Tensor
    state: torch.Tensor
    tries: int
    pdl: bool = False


def inbox_bytes(size: int) -> int:
    """Of one rank among so many."""
    return 2 * size * PROGRAMS * REGION * WORD_BYTES


@triton.jit
def inbox_of(addresses_ptr, rank):
    """A rank's, as this one sees it."""
    return tl.multiple_of(tl.load(addresses_ptr + rank).to(tl.pointer_type(tl.int64)), 16)


@triton.jit
def _send(addresses_ptr, data, place, inside, exchange, RANK: tl.constexpr, SIZE: tl.constexpr):
    """Write words of data (int32) into the inboxes of all others."""
    words = (exchange.to(tl.int64) << 32) | (data.to(tl.int64) & 0xFFFFFFFF)
    offsets = ((exchange & 1) * SIZE + RANK) * _ALL_REGIONS + place
    for step in tl.static_range(1, SIZE):
        tl.store(inbox_of(addresses_ptr, (RANK + step) % SIZE) + offsets, words, mask=inside)


@triton.jit
def _received(inbox, place, inside, exchange, source, exchanges_ptr, state_ptr, tries, SIZE: tl.constexpr):
    """Wait for words from a rank; their data (int32), zeros where they do not come."""
    pointers = inbox + ((exchange & 1) * SIZE + source) * _ALL_REGIONS + place
    words = tl.load(pointers, mask=inside, other=0, volatile=True)
    missing = tl.max((inside & ((words >> 32).to(tl.int32) != exchange)).to(tl.int32), 0)
    tried = 0
    while missing != 0:
        words = tl.load(pointers, mask=inside, other=0, volatile=True)
        missing = tl.max((inside & ((words >> 32).to(tl.int32) != exchange)).to(tl.int32), 0)
        tried += 1
        if (tried % LOOK == 0) & (missing != 0):
            ended = tl.load(exchanges_ptr, volatile=True)
            if tried % FAR_LOOK == 0:
                ended |= tl.load(state_ptr, volatile=True)
            if (ended != 0) | (tried >= tries):
                tl.store(exchanges_ptr, 1)
                tl.store(state_ptr + 1, source + 1)
                missing = 0
    return tl.where((words >> 32).to(tl.int32) == exchange, words, 0).to(tl.int32)


@triton.jit
def _low(word, DTYPE: tl.constexpr):
    """The number in the low half of a word, as float32."""
    return (word & 0xFFFF).to(tl.int16).to(DTYPE, bitcast=True).to(tl.float32)


@triton.jit
def _bits(number, DTYPE: tl.constexpr):
    """The 16 bits of a float32 that is a number of DTYPE, as int32."""
    return number.to(DTYPE).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF


@triton.jit
def summed(
    own_low,
    own_high,
    addresses_ptr,
    place,
    inside,
    exchange,
    exchanges_ptr,
    state_ptr,
    tries,
    DTYPE: tl.constexpr,
    RANK: tl.constexpr,
    SIZE: tl.constexpr,
):
    """The sums over all ranks of two blocks of numbers of DTYPE, given and returned as float32: each word holds one of
    either.
    """
    data = _bits(own_low, DTYPE) | (_bits(own_high, DTYPE) << 16)
    _send(addresses_ptr, data, place, inside, exchange, RANK, SIZE)
    inbox = inbox_of(addresses_ptr, RANK)
    total_low, total_high = own_low, own_high
    for source in tl.static_range(SIZE):
        part_low, part_high = own_low, own_high
        if source != RANK:
            theirs = _received(inbox, place, inside, exchange, source, exchanges_ptr, state_ptr, tries, SIZE)
            part_low, part_high = _low(theirs, DTYPE), _low(theirs >> 16, DTYPE)
        total_low = part_low if source == 0 else total_low + part_low
        total_high = part_high if source == 0 else total_high + part_high
    return total_low, total_high


@triton.jit
def _sum_over_ranks(
    product_ptr,
    out_ptr,
    addresses_ptr,
    exchanges_ptr,
    state_ptr,
    tries,
    count,
    piece,
    RANK: tl.constexpr,
    SIZE: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    launch_next(PDL)
    dtype: tl.constexpr = out_ptr.dtype.element_ty
    program = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    place = program * REGION_WORDS + lanes
    wait_for_previous(PDL)
    exchange = tl.load(exchanges_ptr + 1 + program)
    for chunk in range(program, tl.cdiv(count, 2 * BLOCK), tl.num_programs(0)):
        exchange += 1
        low = chunk * (2 * BLOCK) + lanes  # a word holds a number of the chunk's first half and one of its second
        high = low + BLOCK
        own_low = load_product(product_ptr + low, low < count, piece, SPLITS, dtype)
        own_high = load_product(product_ptr + high, high < count, piece, SPLITS, dtype)
        total_low, total_high = summed(
            own_low,
            own_high,
            addresses_ptr,
            place,
            low < count,
            exchange,
            exchanges_ptr,
            state_ptr,
            tries,
            dtype,
            RANK,
            SIZE,
        )
        tl.store(out_ptr + low, total_low.to(dtype), mask=low < count)
        tl.store(out_ptr + high, total_high.to(dtype), mask=high < count)
    tl.store(exchanges_ptr + 1 + program, exchange)


@triton.jit
def _gather_over_ranks(
    own_ptr,
    out_ptr,
    addresses_ptr,
    exchanges_ptr,
    state_ptr,
    tries,
    count,
    width,
    RANK: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    launch_next(PDL)
    program = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    place = program * REGION_WORDS + lanes
    inbox = inbox_of(addresses_ptr, RANK)
    wait_for_previous(PDL)
    exchange = tl.load(exchanges_ptr + 1 + program)
    for chunk in range(program, tl.cdiv(count, BLOCK), tl.num_programs(0)):
        exchange += 1
        at = chunk * BLOCK + lanes
        own = tl.load(own_ptr + at, mask=at < count, other=0)
        _send(addresses_ptr, own, place, at < count, exchange, RANK, SIZE)
        first = out_ptr + (at // width).to(tl.int64) * (SIZE * width) + at % width
        tl.store(first + RANK * width, own, mask=at < count)
        for step in tl.static_range(1, SIZE):
            source = (RANK + step) % SIZE
            theirs = _received(inbox, place, at < count, exchange, source, exchanges_ptr, state_ptr, tries, SIZE)
            tl.store(first + source * width, theirs, mask=at < count)
    tl.store(exchanges_ptr + 1 + program, exchange)


def sum_over_ranks(product: Product, inboxes: Inboxes) -> torch.Tensor:
    """Every rank's product `[n, size]` of 16-bit numbers, added as `models.group` says."""
    own, splits, dtype = pieces_of(product)
    out = torch.empty(own.shape[-2:], dtype=dtype, device=own.device)
    count = out.numel()
    if count:
        grid, launch = launch_options(-(-count // 2), inboxes)
        _sum_over_ranks[grid](own, out, *reach(inboxes), count, count, SPLITS=splits, **launch)
    return out


def gather_over_ranks(own: torch.Tensor, inboxes: Inboxes) -> torch.Tensor:
    """Every rank's columns of int32 `[n, m]` side by side, `[n, size * m]`."""
    rows, width = own.shape
    out = torch.empty(rows, inboxes.size * width, dtype=own.dtype, device=own.device)
    if own.numel():
        grid, launch = launch_options(own.numel(), inboxes)
        _gather_over_ranks[grid](own.contiguous(), out, *reach(inboxes), own.numel(), width, **launch)
    return out


def reach(inboxes: Inboxes) -> tuple[torch.Tensor | int, ...]:
    """The arguments by which a kernel finds the others."""
    return inboxes.addresses, inboxes.exchanges, inboxes.state, inboxes.tries


def launch_options(words: int, inboxes: Inboxes) -> tuple[tuple[int], dict[str, object]]:
    """The grid, and the arguments that both kernels share. Few words are spread over as many programs as can be."""
    block, warps = SMALL if words <= SMALL[0] * PROGRAMS else LARGE
    grid = (min(PROGRAMS, -(-words // block)),)
    shared = {"RANK": inboxes.rank, "SIZE": inboxes.size, "BLOCK": block, "num_warps": warps}
    return grid, {**shared, **pdl_options(inboxes.pdl)}
