"""FlashInfer's attention: what it is told, with a stand-in that computes what it documents; on a GPU the real one."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kernel_cases import BLOCK, AttentionCase, attention_case, attention_in_float64, error, same_bits

from ssd_lab.errors import ConfigError
from ssd_lab.kernels.backend import choose_kernels
from ssd_lab.kernels.flashinfer_attention import WORKSPACE_BYTES, FlashInferAttention, workspace_bytes
from ssd_lab.kernels.interface import HeadLayout

HEADS = HeadLayout(8, 2, 64)
CASES = {
    "rows": ([[1, 16, 17, 130], [33, 34, 35, 36]], 0),
    "tree": ([[20, 21, 22, 20], [5, 300, 7, 1]], 3),
    "empty": ([[0, 3, 0, 9], [0, 0, 0, 0]], 0),
}


class StandIn:
    """One softmax a request over the pages it is given."""

    def __init__(self, workspace: torch.Tensor, layout: str, use_tensor_cores: bool, backend: str) -> None:
        assert layout == "NHD" and not workspace.any() and use_tensor_cores and backend == "fa2"
        self._room = workspace.numel()

    def plan(
        self, starts: torch.Tensor, pages: torch.Tensor, last: torch.Tensor, heads: int, kv_heads: int, size: int,
        page_size: int, **options: Any,
    ) -> None:  # fmt: skip
        assert starts.dtype == pages.dtype == last.dtype == torch.int32
        assert int(starts[-1]) == len(pages) and (starts.diff() > 0).all() and (last == 1).all() and page_size == 1
        assert (heads, kv_heads, size) == (HEADS.num_heads, HEADS.num_kv_heads, HEADS.head_dim)
        splits = sum(-(-length // options["fixed_split_size"]) for length in starts.diff().tolist())
        assert heads * splits * 16 * (size + 1) * 4 <= self._room, "refused: the workspace is too small"
        self._requests = [pages[a:b].long() for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]

    def run(self, queries: torch.Tensor, cache: tuple[torch.Tensor, torch.Tensor], *, enable_pdl: bool) -> torch.Tensor:
        assert not enable_pdl
        keys, values = cache
        assert keys.stride() == values.stride() and keys.shape[1:] == (1, HEADS.num_kv_heads, HEADS.head_dim)
        out = torch.empty_like(queries)
        for row, pages in enumerate(self._requests):
            k, v = (side[pages, 0].repeat_interleave(HEADS.group, 1) for side in cache)
            weights = torch.softmax(torch.einsum("hd,nhd->hn", queries[row], k) / HEADS.head_dim**0.5, -1)
            out[row] = torch.einsum("hn,nhd->hd", weights, v)
        return out


def attend(attention: FlashInferAttention, case: AttentionCase) -> torch.Tensor:
    plan = attention.plan(case.step(), BLOCK, HEADS, case.queries.dtype)
    return attention.attend(case.flat_queries(), case.cache, plan)


@pytest.mark.parametrize("name", CASES)
def test_each_row_is_given_the_slots_it_sees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flashinfer", SimpleNamespace(BatchDecodeWithPagedKVCacheWrapper=StandIn))
    prefixes, depth = CASES[name]
    case = attention_case(HEADS, torch.float32, prefixes, depth=depth)
    result = attend(FlashInferAttention(torch.device("cpu")), case)
    assert error(result, attention_in_float64(case)) < 1e-6


def test_the_workspace_grows_with_rows_and_context() -> None:
    assert workspace_bytes(1, 512, HEADS) == WORKSPACE_BYTES
    llama = HeadLayout(32, 8, 128)
    assert workspace_bytes(64, 8192, llama) == 64 * 16 * 32 * 16 * 129 * 4
    assert workspace_bytes(64, 8192, HeadLayout(32, 1, 128)) == 64 * 16 * 32 * 64 * 129 * 4, "32 heads take 64 rows"
    assert workspace_bytes(64, 8193, llama) == 64 * 17 * 32 * 16 * 129 * 4


def test_a_longer_context_than_the_first_workspace_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flashinfer", SimpleNamespace(BatchDecodeWithPagedKVCacheWrapper=StandIn))
    monkeypatch.setattr("ssd_lab.kernels.flashinfer_attention.WORKSPACE_BYTES", 1 << 10)
    attention = FlashInferAttention(torch.device("cpu"))
    for prefixes in ([[5, 6]], [[700, 1300], [1, 513]], [[5, 6]]):
        case = attention_case(HEADS, torch.float32, prefixes)
        assert error(attend(attention, case), attention_in_float64(case)) < 1e-6


@pytest.mark.skipif(importlib.util.find_spec("flashinfer") is None, reason="flashinfer is not installed")
def test_the_installed_version_has_the_arguments() -> None:
    """Older ones than 0.4.0 cannot be told where to cut."""
    from flashinfer import BatchDecodeWithPagedKVCacheWrapper as Wrapper

    made = inspect.signature(Wrapper.__init__)
    made.bind(None, torch.empty(0), "NHD", use_tensor_cores=True, backend="fa2")
    types = {"q_data_type": torch.bfloat16, "kv_data_type": torch.bfloat16}
    inspect.signature(Wrapper.plan).bind(None, *[torch.empty(0)] * 3, 8, 2, 64, 1, **types, fixed_split_size=512)
    inspect.signature(Wrapper.run).bind(None, torch.empty(0), (torch.empty(0), torch.empty(0)), enable_pdl=False)


def test_the_architecture_to_build_for_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flashinfer", SimpleNamespace(BatchDecodeWithPagedKVCacheWrapper=StandIn))
    monkeypatch.setenv("FLASHINFER_CUDA_ARCH_LIST", "8.0")
    FlashInferAttention(torch.device("cpu"))
    assert os.environ["FLASHINFER_CUDA_ARCH_LIST"] == "8.0"
    FlashInferAttention(torch.device("cpu"), "9.0")
    assert os.environ["FLASHINFER_CUDA_ARCH_LIST"] == "9.0"


def test_it_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flashinfer", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[flashinfer\]'"):
        choose_kernels("cuda", "flashinfer")


def test_it_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="run on CUDA devices, not on 'cpu'"):
        choose_kernels("cpu", "flashinfer")


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("flashinfer") is None,
    reason="no CUDA device, or flashinfer is not installed",
)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_flashinfer_itself(name: str, dtype: torch.dtype) -> None:
    prefixes, depth = CASES[name]
    case = attention_case(HEADS, dtype, prefixes, depth=depth)
    case.cache[:BLOCK] = 0
    attention = FlashInferAttention(torch.device("cuda"))
    result = attend(attention, case.to(torch.device("cuda")))
    expected = attention_in_float64(case)
    assert error(result, expected) < 4 * torch.finfo(dtype).eps
    assert same_bits(attend(attention, case.to(torch.device("cuda"))), result)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("flashinfer") is None,
    reason="no CUDA device, or flashinfer is not installed",
)
def test_flashinfers_rows_do_not_depend_on_each_other() -> None:
    """Beside longer rows a short one goes through the sum of splits too, which must not round it again."""
    prefixes = [[40, 511, 512, 513, 1500]]
    case = attention_case(HEADS, torch.bfloat16, prefixes).to(torch.device("cuda"))
    attention = FlashInferAttention(torch.device("cuda"))
    together = attend(attention, case)
    for row in range(5):
        alone = replace(case, queries=case.queries[:, row : row + 1], prefixes=case.prefixes[:, row : row + 1])
        assert same_bits(attend(attention, alone), together[row : row + 1]), prefixes[0][row]
