"""Where a result was measured: the machine, the versions, and the state of the code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import ssd_lab

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
_GIT_TIMEOUT_S = 10.0
_MEBIBYTE = 1 << 20


def describe() -> dict[str, Any]:
    """Hardware, versions and git state of this process, as plain data."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "git": git_state(Path(ssd_lab.__file__).parent),
    }


def in_words(described: dict[str, Any]) -> tuple[str, str]:
    """What `describe` gave as two lines: the machine, and the versions with the state of the code."""
    machine, git = described["hardware"], described["git"]
    state = "an installed copy" if git is None else git["commit"][:12] + (" with changes" if git["dirty"] else "")
    installed = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    return (
        f"{machine['cpu']}, {machine['cores']} cores available, {gpus}; {machine['system']}",
        f"{installed}; code: {state}",
    )


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, memory and GPUs; None where the system does not tell."""
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_name(),
        "cores": os.cpu_count() if affinity is None else len(affinity),
        "memory_bytes": _memory_bytes(),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
    }


def versions() -> dict[str, str]:
    """Python, this package, CUDA, and the packages that compute."""
    found = {"python": platform.python_version(), "ssd_lab": ssd_lab.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found


def git_state(package: Path) -> dict[str, Any] | None:
    """`commit` and `dirty` of the checkout that the package is run from; None for an installed copy.

    Untracked files do not count as changes.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != package.resolve().parent:
        return None  # an environment inside somebody else's repository
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--untracked-files=no", "--", str(package))
    return None if commit is None else {"commit": commit, "dirty": None if changes is None else bool(changes)}


def model(name: str, source: str | None) -> dict[str, Any]:
    """What a model's name stood for: the snapshot's revision in a hub cache, and a digest of its weight files.

    The digest covers names, sizes, and the first and last mebibyte of each file: it tells exchanged weights without
    reading hundreds of gigabytes.
    """
    path = None if source is None else Path(source).expanduser()
    if path is None or not path.exists():
        return {"name": name, "revision": None, "digest": None}
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_MEBIBYTE))
            stream.seek(max(0, size - _MEBIBYTE))
            digest.update(stream.read(_MEBIBYTE))
    revision = path.name if path.parent.name == "snapshots" else None
    return {"name": name, "revision": revision, "digest": digest.hexdigest()}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "compute_capability": f"{properties.major}.{properties.minor}",
    }


def _cpu_name() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def free_memory_bytes() -> int | None:
    """What programs could take now without another giving way (Linux), or the free pages; None if nothing tells."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
