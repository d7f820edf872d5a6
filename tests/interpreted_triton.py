"""Makes Triton's interpreter fit for tests; import it before a kernel is run, with TRITON_INTERPRET=1 set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
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


def _add_products_in_one_order() -> None:
    """What a library's product of matrices rounds to may depend on how many rows it has, and on the processor; a tensor
    core's does not. Here each row adds its products one after another.
    """

    def create_dot(self: Any, a: Any, b: Any, added: Any, *precision: Any) -> Any:
        product = _row_by_row(a.data, b.data, added.data.dtype)
        return interpreter.TensorHandle(product + added.data, added.dtype.scalar)

    interpreter.InterpreterBuilder.create_dot = create_dot


def _row_by_row(a: np.ndarray, b: np.ndarray, dtype: Any) -> np.ndarray:
    """`a @ b` for arrays `[..., rows, terms]` and `[..., terms, columns]`."""
    a, b = a.astype(dtype), b.astype(dtype)
    total = np.zeros((*a.shape[:-1], b.shape[-1]), dtype)
    for term in range(a.shape[-1]):
        total += a[..., term, None] * b[..., term, None, :]
    return total


_take_arrays_for_numbers()
_add_products_in_one_order()
_prepare_once_a_launch()
