"""Which kernels a device gets: the only place that decides."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch

from ssd_lab.common.device_guard import current
from ssd_lab.errors import ConfigError
from ssd_lab.kernels.interface import Attention, Kernels
from ssd_lab.kernels.torch_kernels import TorchKernels

KernelName = Literal["auto", "torch", "triton", "flashinfer"]
LEAST_CAPABILITY = (8, 0)
PDL_CAPABILITY = (9, 0)


def choose_kernels(device: torch.device | str, name: str = "auto", *, pdl: bool | None = None) -> Kernels[Any]:
    """Kernels for a device: `auto` is triton on a CUDA device and torch elsewhere, `flashinfer` is triton with another
    attention.

    pdl: programmatic dependent launch, for Triton kernels on compute capability 9.0 and up (None: wherever the device
    has it). Raises ConfigError if the name is unknown, or if what it stands for is not installed, does not run on the
    device, or cannot be compiled.
    """
    device = torch.device(device)
    if name == "auto":
        name = "triton" if device.type == "cuda" else "torch"
    if name == "torch":
        return TorchKernels()
    if name == "triton":
        return _triton_kernels(device, pdl)
    if name == "flashinfer":
        return _triton_kernels(device, pdl, _flashinfer_attention(device))
    raise ConfigError(f"kernels {name!r} are not known: auto, torch, triton and flashinfer are")


def _flashinfer_attention(device: torch.device) -> Attention:
    if device.type != "cuda":
        raise ConfigError(f"kernels 'flashinfer' run on CUDA devices, not on {device.type!r}: choose kernels 'torch'")
    from ssd_lab.kernels.flashinfer_attention import FlashInferAttention
    from ssd_lab.settings import settings

    return FlashInferAttention(device, settings().cuda_arch)


def _triton_kernels(device: torch.device, pdl: bool | None, attention: Attention | None = None) -> Kernels[Any]:
    if importlib.util.find_spec("triton") is None:
        raise ConfigError("the Triton kernels need the package triton: pip install triton, or choose kernels 'torch'")
    from ssd_lab.kernels.triton_ops.launching import is_interpreted
    from ssd_lab.kernels.triton_ops.triton_kernels import TritonKernels

    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if device.type == "cuda":
        least = PDL_CAPABILITY if pdl else LEAST_CAPABILITY
        if torch.version.hip is None and capability < least:
            raise ConfigError(
                f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}; the "
                f"Triton kernels{' with pdl' if pdl else ''} need {least[0]}.{least[1]}: choose kernels 'torch'"
                f"{' or leave out pdl' if pdl else ''}"
            )
    elif not is_interpreted():
        raise ConfigError(
            f"the Triton kernels run on CUDA devices, not on {device.type!r}: choose kernels 'torch', or set "
            "TRITON_INTERPRET=1 before Python starts (very slow, for tests)"
        )
    if pdl is None:
        pdl = device.type == "cuda" and torch.version.hip is None and capability >= PDL_CAPABILITY
    kernels = TritonKernels(pdl=pdl, attention=attention)
    _compile_one(kernels, device)
    return kernels


def _compile_one(kernels: Kernels[Any], device: torch.device) -> None:
    """Run the smallest kernel, so that a machine that cannot compile says so now and in our words."""
    try:
        with current(device):
            kernels.gated_silu(torch.zeros(1, 32, device=device))
    except Exception as error:
        raise ConfigError(
            f"the Triton kernels cannot be compiled here ({type(error).__name__}: {error}): Triton needs a C compiler "
            "(gcc or clang on the PATH, or named by CC) and a driver that fits torch's CUDA build; or choose kernels "
            "'torch'"
        ) from error
