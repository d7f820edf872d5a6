"""Where weights are fetched before the rows are there: which kernel makes a product, and on which devices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from ssd_lab.kernels.triton_ops import linear  # noqa: E402 - it imports triton
from ssd_lab.kernels.triton_ops.few_rows import TritonFewRows  # noqa: E402 - it imports triton
from ssd_lab.kernels.triton_ops.linear_tuning import LinearTuning  # noqa: E402 - it imports triton


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Names of kernels and their options, in the place of launches."""
    found: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(linear, "launch", lambda kernel, grid, *_, **options: found.append((kernel.__name__, options)))
    return found


@pytest.mark.parametrize(
    ("rows", "inputs", "split_k", "gated", "kernel"),
    [
        (1, 512, 1, False, "early_product"),
        (64, 512, 1, True, "early_product"),
        (100, 512, 2, False, "early_product"),
        (300, 512, 2, False, "whole_product"),  # each result's splits in one program
        (200, 512, 1, True, "split_product"),  # two tiles of rows
        (1, 520, 1, False, "split_product"),  # a last step that is not whole
    ],
)
def test_one_tile_of_rows_has_its_weights_fetched_early(
    launched: list[tuple[str, dict[str, Any]]], rows: int, inputs: int, split_k: int, gated: bool, kernel: str
) -> None:
    weight = torch.zeros(256, inputs, dtype=torch.bfloat16)
    made = torch.zeros(rows, inputs, dtype=torch.bfloat16)
    for early in (True, False):
        product = TritonFewRows(weight, None, LinearTuning(split_k=split_k, shared_kib=48), early=early)
        product.gated(made) if gated else product(made)
    (name, options), (plain, _) = launched
    assert name == kernel and plain == ("whole_product" if kernel == "whole_product" else "split_product")
    if name == "early_product":  # a step makes room when the next begins
        assert min(2, options["STEPS"]) <= options["STAGES"] <= options["STEPS"]


@pytest.mark.parametrize(
    ("capability", "version", "hip", "expected"),
    [
        ((9, 0), "3.6.0", None, True),
        ((9, 0), "3.6.0", "6.4", False),  # some AMD GPUs call themselves 9.0 too
        ((9, 0), "3.7.1", None, False),
        ((10, 0), "3.6.0", None, False),
    ],
)
def test_only_devices_on_which_it_was_compared_do(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], version: str, hip: str | None, expected: bool
) -> None:
    properties = SimpleNamespace(major=capability[0], minor=capability[1])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(triton, "__version__", version)
    monkeypatch.setattr(torch.version, "hip", hip)
    weight = torch.zeros(256, 512, dtype=torch.bfloat16, device="meta")
    assert TritonFewRows(weight, None, LinearTuning()).compared is expected
    assert not TritonFewRows(weight.half(), None, LinearTuning()).compared
