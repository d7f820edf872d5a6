"""Which kernels a device gets, what is said when it cannot have them, and that nothing imports triton unasked."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest
import torch

from ssd_lab.errors import ConfigError
from ssd_lab.kernels import backend
from ssd_lab.kernels.backend import choose_kernels
from ssd_lab.kernels.torch_kernels import TorchKernels

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.mark.parametrize("name", ["auto", "torch"])
def test_the_cpu_gets_torch(name: str) -> None:
    assert isinstance(choose_kernels("cpu", name), TorchKernels)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="'cutlass' are not known: auto, torch, triton"):
        choose_kernels("cpu", "cutlass")


@needs_triton
def test_triton_on_the_cpu_is_refused_outside_its_interpreter() -> None:
    with pytest.raises(ConfigError, match="run on CUDA devices, not on 'cpu'"):
        choose_kernels("cpu", "triton")


def test_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    for name in ("auto", "triton"):
        with pytest.raises(ConfigError, match="pip install triton"):
            choose_kernels("cuda", name)


def on_a_card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")


@needs_triton
def test_old_cards_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_card(monkeypatch, (7, 5))
    with pytest.raises(ConfigError, match=r"a card has compute capability 7\.5.* need 8\.0"):
        choose_kernels("cuda")
    on_a_card(monkeypatch, (8, 9))
    with pytest.raises(ConfigError, match=r"with pdl need 9\.0.*leave out pdl"):
        choose_kernels("cuda", pdl=True)


@needs_triton
def test_a_machine_that_cannot_compile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssd_lab.kernels.triton_ops.triton_kernels import TritonKernels

    def no_compiler(*args: Any) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler")

    on_a_card(monkeypatch, (9, 0))
    monkeypatch.setattr("ssd_lab.common.device_guard.GUARDS", {})  # there is no such device to make current
    monkeypatch.setattr(torch, "zeros", lambda *size, device: None)
    monkeypatch.setattr(TritonKernels, "gated_silu", no_compiler)
    with pytest.raises(ConfigError, match=r"cannot be compiled here \(RuntimeError: Failed to find C compiler\).*gcc"):
        choose_kernels("cuda")


def test_importing_the_package_its_kernels_and_trackers_leaves_triton_and_wandb_alone() -> None:
    code = (
        "import sys, ssd_lab, ssd_lab.kernels, ssd_lab.kernels.triton_ops, ssd_lab.kernels.backend as backend; "
        "import ssd_lab.bench.trackers; backend.choose_kernels('cpu'); "
        "sys.exit('triton' in sys.modules or 'wandb' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
