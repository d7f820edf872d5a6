"""Can this torch, driver and card do what a CUDA device is asked for? Found out before anything is loaded."""

from __future__ import annotations

import re

import torch

from ssd_lab.errors import ConfigError
from ssd_lab.kernels.backend import choose_kernels

_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)$")


def check_cuda(device: torch.device, kernels: str = "auto") -> None:
    """Raise ConfigError, which says what to do, if the CUDA device cannot be used with these kernels.

    Looked at: torch's build, the driver, the device's number, whether torch has code for the card, and what
    `choose_kernels` asks for (compute capability 8.0, a compiler). A CPU passes.
    """
    if device.type != "cuda":
        return
    check_cuda_build(device)
    choose_kernels(device, kernels)


def check_cuda_build(device: torch.device) -> None:
    """The part of `check_cuda` that needs no kernels."""
    if torch.version.cuda is None and torch.version.hip is None:
        raise ConfigError(
            f"device {str(device)!r} was asked for, and torch {torch.__version__} here was built without CUDA: install "
            "a build with CUDA (pip install torch, from the default index on Linux), or give device cpu"
        )
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # no driver, no card, or a driver too old for this build
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"HIP {torch.version.hip}"
        raise ConfigError(
            f"device {str(device)!r} was asked for, and CUDA does not start ({reason}): torch {torch.__version__} was "
            f"built for {built_for}; update the driver, or install a torch built for an older one, or give device cpu"
        ) from error
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise ConfigError(f"device {str(device)!r} was asked for and {count} CUDA devices are here: give auto or cpu")
    if torch.version.hip is None:
        _check_architecture(device)


def _check_architecture(device: torch.device) -> None:
    """Code for a card runs on cards of the same major version and a minor one at least as high; intermediate code
    (`compute_`) on every later card.
    """
    capability = torch.cuda.get_device_capability(device)
    built_for = torch.cuda.get_arch_list()
    known = [(kind, (int(major), int(minor))) for kind, major, minor in map(_parts, built_for) if kind]
    fits = [have <= capability and (kind == "compute" or have[0] == capability[0]) for kind, have in known]
    if known and not any(fits) and f"sm_{capability[0]}{capability[1]}a" not in built_for:
        raise ConfigError(
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}, and torch "
            f"{torch.__version__} here has code for {', '.join(built_for)} only: install a torch built for this card"
        )


def _parts(architecture: str) -> tuple[str, str, str]:
    found = _ARCHITECTURE.match(architecture)
    return ("", "", "") if found is None else (found[1], found[2], found[3])
