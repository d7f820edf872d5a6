"""Kernels compiled in other processes, ahead of their timing, within a budget of time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

BuildT = TypeVar("BuildT", bound=Hashable)


class CompileAhead(Generic[BuildT]):
    """Compiles in a pool's processes, which leave kernels in Triton's cache on the disk.

    compile_one: compiles one build; a function of a module, since other processes must find it.
    """

    def __init__(self, pool: Executor, compile_one: Callable[[BuildT], None], budget_s: float) -> None:
        self._pool = pool
        self._compile_one = compile_one
        self._end = time.monotonic() + budget_s
        self._built: dict[BuildT, Future[None]] = {}

    def ahead(self, builds: list[BuildT]) -> None:
        """Begin to compile, in this order."""
        for build in builds:
            if build not in self._built:
                self._built[build] = self._pool.submit(self._compile_one, build)

    def ready(self, build: BuildT) -> bool:
        """Wait for a kernel; False if it does not compile or the time is over."""
        if self.left_s() <= 0:
            return False
        self.ahead([build])
        try:
            self._built[build].result(timeout=self.left_s())
        except Exception as error:  # whatever the compiler says about one candidate is no reason to stop
            sys.stderr.write(f"{build}: {type(error).__name__}: {error}\n")
            return False
        return True

    def forget_waiting(self) -> None:
        """Leave out what has not begun to compile."""
        self._built = {build: future for build, future in self._built.items() if not future.cancel()}

    def left_s(self) -> float:
        """Seconds of the budget."""
        return self._end - time.monotonic()
