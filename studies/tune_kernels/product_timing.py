"""Times and errors of single products on a GPU, over copies of a weight that no cache holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from ssd_lab.kernels.product import Product, whole
from ssd_lab.kernels.triton_ops.activation import gated_silu
from ssd_lab.kernels.triton_ops.few_rows import TritonFewRows
from ssd_lab.kernels.triton_ops.linear_tuning import LinearTuning
from ssd_lab.kernels.triton_ops.norm import add_rms_norm
from studies.tune_kernels.graph_timing import graph_us

ROTATED_BYTES = 1 << 28  # more than five times the second cache of an H100
FEWEST_CALLS = 24  # of one graph
LEAST_BYTES = 1 << 30  # read by one graph


@dataclass(frozen=True)
class ProductCase:
    """A weight `[out, in]` and what is made of its product: silu(gate) * up if gated, float32 if wide."""

    name: str
    out_features: int
    in_features: int
    mode: Literal["plain", "gated", "wide"] = "plain"

    @contextmanager
    def weights(self) -> Iterator[list[torch.Tensor]]:
        """Copies to rotate among, freed afterwards."""
        copies = max(2, -(-ROTATED_BYTES // (self.out_features * self.in_features * 2)))
        generator = torch.Generator("cuda").manual_seed(0)
        shape = (self.out_features, self.in_features)
        made = [torch.empty(shape, dtype=torch.bfloat16, device="cuda") for _ in range(copies)]
        for weight in made:
            weight.normal_(0, self.in_features**-0.5, generator=generator)
        yield made
        made.clear()
        torch.cuda.empty_cache()

    def output(self, rows: int, splits: int, device: str) -> torch.Tensor:
        """What the kernel writes to."""
        if splits > 1:
            return torch.empty(splits, rows, self.out_features, dtype=torch.float32, device=device)
        columns = self.out_features // 2 if self.mode == "gated" else self.out_features
        dtype = torch.float32 if self.mode == "wide" else torch.bfloat16
        return torch.empty(rows, columns, dtype=dtype, device=device)


def product_us(
    case: ProductCase,
    weights: list[torch.Tensor],
    tuning: LinearTuning,
    rows: int,
    *,
    behind_norm: bool = False,
    pdl: bool = False,
) -> float:
    """Microseconds of one product, with the norm that makes its input if behind_norm."""
    kernels = {weight.data_ptr(): TritonFewRows(weight, None, tuning, pdl=pdl) for weight in weights}

    def product(inputs: torch.Tensor, weight: torch.Tensor) -> None:
        _made(case, kernels[weight.data_ptr()], inputs)

    return _microseconds(case, weights, rows, product, behind_norm=behind_norm, pdl=pdl)


def library_us(case: ProductCase, weights: list[torch.Tensor], rows: int, *, behind_norm: bool = False) -> float:
    """The same by the library, with the operations that the kernel does besides."""

    def product(inputs: torch.Tensor, weight: torch.Tensor) -> None:
        result = F.linear(inputs, weight)
        if case.mode == "gated":
            gated_silu(result)
        elif case.mode == "wide":
            result.float()

    return _microseconds(case, weights, rows, product, behind_norm=behind_norm, pdl=False)


def _microseconds(
    case: ProductCase,
    weights: list[torch.Tensor],
    rows: int,
    product: Callable[[torch.Tensor, torch.Tensor], None],
    *,
    behind_norm: bool,
    pdl: bool,
) -> float:
    """One call of many that follow each other in a CUDA graph, over all copies in turn; the median of some replays."""
    inputs = torch.randn(rows, case.in_features, dtype=torch.bfloat16, device="cuda")
    norm_weight = torch.ones(case.in_features, dtype=torch.bfloat16, device="cuda")

    def call(weight: torch.Tensor) -> None:
        product(add_rms_norm(inputs, None, norm_weight, 1e-5, pdl=pdl)[1] if behind_norm else inputs, weight)

    calls = max(FEWEST_CALLS, LEAST_BYTES // (case.out_features * case.in_features * 2))
    return graph_us(lambda number: call(weights[number % len(weights)]), calls)


def worst_error(
    case: ProductCase, weight: torch.Tensor, tuning: LinearTuning, row_counts: tuple[int, ...]
) -> tuple[float, bool]:
    """The error against float64 over the library's own (1 is as good); and are a row's bits always the same?"""
    most = max(row_counts)
    generator = torch.Generator("cuda").manual_seed(1)
    inputs = torch.randn(most, case.in_features, dtype=torch.bfloat16, device="cuda", generator=generator)
    together = _product(case, inputs, weight, tuning)
    invariant = True
    for count in row_counts:
        for first in {0, most - count, (most - count) // 2}:
            alone = _product(case, inputs[first : first + count], weight, tuning)
            invariant &= torch.equal(alone, together[first : first + count])
    plain = F.linear(inputs, weight)
    exact = torch.cat([inputs.double() @ part.double().T for part in weight.split(8192)], 1)
    if case.mode == "gated":
        gate, up = exact.chunk(2, -1)
        exact, plain = F.silu(gate) * up, gated_silu(plain)
    ratio = (together.double() - exact).norm() / (plain.double() - exact).norm()
    return float(ratio), invariant


def _product(case: ProductCase, inputs: torch.Tensor, weight: torch.Tensor, tuning: LinearTuning) -> torch.Tensor:
    """The result `[n, columns]`."""
    return whole(_made(case, TritonFewRows(weight, None, tuning), inputs.contiguous()))


def _made(case: ProductCase, kernel: TritonFewRows, inputs: torch.Tensor) -> Product:
    if case.mode == "wide":
        return kernel.wide(inputs)
    gated = kernel.gated(inputs) if case.mode == "gated" else None
    return kernel(inputs) if gated is None else gated
