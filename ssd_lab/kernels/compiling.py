"""Kernels that are compiled many at once, and a note beside them in Triton's cache that says that they are there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOTE = "compiled"


@contextmanager
def compiling_together(pool: Executor) -> Iterator[None]:
    """Within, in this thread, Triton kernels are not launched: the pool compiles them, and the end waits for it. One
    that cannot be compiled is left to whoever launches it.
    """
    from triton import AsyncCompileMode

    from ssd_lab.kernels.triton_ops.launching import only_compiled

    with only_compiled(), AsyncCompileMode(pool, ignore_errors=True):
        yield


def is_compiled(work: str) -> bool:
    """Was `note_compiled` called for this work, with kernels as they are, and is the cache still there?"""
    return _cache(work).get_file(NOTE) is not None


def note_compiled(work: str) -> None:
    """The kernels of this work are in the cache. work: all that they follow from but their source, in words."""
    _cache(work).put(work, NOTE, binary=False)


def _cache(work: str) -> Any:
    import triton
    from triton.runtime.cache import get_cache_manager

    found = hashlib.sha256(f"{triton.__version__} {work}".encode())
    for source in sorted((Path(__file__).parent / "triton_ops").glob("*.py")):
        found.update(source.read_bytes())
    return get_cache_manager(found.hexdigest())
