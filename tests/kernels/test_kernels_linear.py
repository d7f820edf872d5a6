"""Products with packed weights against float64, and the probe that finds their row padding."""

from __future__ import annotations

import pytest
import torch

from ssd_lab.kernels import row_probe
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.row_padding import RowPadding
from ssd_lab.kernels.row_probe import CANDIDATES, make_row_invariant, probe_row_padding


@pytest.fixture(autouse=True)
def nothing_was_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_probe, "_found", {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("pack", [False, True])
def test_products_are_those_of_float64(dtype: torch.dtype, with_bias: bool, pack: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(48, 96, generator=generator) / 96**0.5).to(dtype)
    bias = torch.randn(48, generator=generator).to(dtype) if with_bias else None
    linear = Linear(weight.clone(), bias, pack=pack)
    for rows in (1, 2, 5, 33):
        inputs = torch.randn(rows, 96, generator=generator).to(dtype)
        expected = inputs.double() @ weight.double().T + (0 if bias is None else bias.double())
        result = linear(inputs)
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), expected, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=1e-2)
    assert linear.bytes == weight.numel() * weight.element_size()


def test_a_library_without_packed_products_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    weight, inputs = torch.randn(8, 16), torch.randn(3, 16)
    assert torch.equal(Linear(weight)(inputs), torch.nn.functional.linear(inputs, weight))


@pytest.mark.parametrize(("minimum", "multiple"), CANDIDATES)
def test_padding_is_the_least_that_fits(minimum: int, multiple: int) -> None:
    padding = RowPadding(minimum, multiple)
    for rows in range(1, 40):
        padded = padding.padded(rows)
        assert padded >= max(rows, padding.minimum) and padded % padding.multiple == 0
        assert padded - rows < max(padding.minimum, padding.multiple)


class FewRowsDiffer(Linear):
    """As if the library summed groups of fewer rows in another order."""

    threshold = 1

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        return super().product(rows) + (0.5 if len(rows) < self.threshold else 0.0)


@pytest.mark.parametrize(("threshold", "expected"), [(2, (2, 1)), (4, (4, 4)), (8, (8, 8)), (20, (24, 1))])
def test_the_probe_finds_the_least_padding(threshold: int, expected: tuple[int, int]) -> None:
    linear = FewRowsDiffer(torch.randn(32, 64, generator=torch.Generator().manual_seed(0)))
    linear.threshold = threshold
    found = probe_row_padding(linear)
    assert (found.minimum, found.multiple, found.invariant) == (*expected, True)


class PlacesDiffer(Linear):
    """As if a row's sum depended on its place among the others."""

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        return super().product(rows) + 0.25 * torch.arange(len(rows))[:, None]


def test_the_probe_says_when_nothing_helps() -> None:
    assert not probe_row_padding(PlacesDiffer(torch.randn(32, 64))).invariant


class ManyRowsDiffer(Linear):
    """As if the library summed groups of more rows in another order; with few of them all can be made many."""

    threshold = 100

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        return super().product(rows) + (0.5 if len(rows) > self.threshold else 0.0)


@pytest.mark.parametrize(("threshold", "largest"), [(100, 96), (70, 64), (20, None)])
def test_more_rows_than_agree_are_computed_in_pieces(threshold: int, largest: int) -> None:
    linear = ManyRowsDiffer(torch.randn(32, 64, generator=torch.Generator().manual_seed(0)))
    linear.threshold = threshold
    found = make_row_invariant([linear])
    assert found.invariant and found.largest == largest
    rows = torch.randn(128, 64, generator=torch.Generator().manual_seed(1))
    together = linear(rows)
    assert all(torch.equal(linear(rows[i : i + 1])[0], together[i]) for i in range(128))


def test_products_that_are_computed_alike_are_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[tuple[int, torch.dtype]] = []

    def probing(linear: Linear, most: int | None) -> RowPadding:
        probed.append((linear.out_features, linear.dtype))
        return probe_row_padding(linear, most)

    monkeypatch.setattr(row_probe, "probe_row_padding", probing)
    weight = torch.randn(24, 64)
    plain = torch.randn(40, 128)
    for linear in (
        Linear(weight), Linear(weight.clone()), Linear(weight, torch.ones(24)), Linear(weight.bfloat16()),
        Linear(plain, pack=False), Linear(plain, pack=False), Linear(plain[:, 3:67], pack=False),
    ):  # fmt: skip
        assert make_row_invariant([linear]).invariant
    of_24, of_40 = (24, torch.float32), (40, torch.float32)
    assert probed == [of_24, of_24, (24, torch.bfloat16), of_40, of_40]  # again with a bias, and with other strides
