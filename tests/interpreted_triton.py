"""Makes Triton's interpreter fit for tests; import it before a kernel is run, with TRITON_INTERPRET=1 set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from triton.language import standard
from triton.runtime import interpreter


def _take_arrays_for_numbers() -> None:
    """Triton 3.6 makes a loop's bounds of arrays of one element, which numpy 2.4 no longer takes for numbers."""
    patch_tensors = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch_tensors(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


def _prepare_once_a_launch() -> None:
    """The interpreter exchanges the language's functions again at each call of one jitted function by another, though
    they are exchanged while a kernel runs; that took most of the time.
    """
    patch = interpreter._patch_lang
    running: list[Any] = []

    class Launch:
        def __init__(self, kernel: Callable[..., Any]) -> None:
            self._scopes = [patch(kernel), patch(standard.cdiv.fn)]
            running.append(self)

        def restore(self) -> None:
            for scope in reversed(self._scopes):
                scope.restore()
            running.remove(self)

    interpreter._patch_lang = lambda function: running[0] if running else Launch(function)


_take_arrays_for_numbers()
_prepare_once_a_launch()
