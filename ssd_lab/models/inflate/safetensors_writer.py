"""Write a safetensors file one tensor at a time: no more than one of them is in memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ALIGNMENT = 8  # where the format wants the first tensor to start


def file_bytes(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> int:
    """Size of the file that `write_safetensors` writes."""
    return len(_header(shapes, dtype)) + sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize


def write_safetensors(
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    read: Callable[[str], torch.Tensor],
    on_bytes: Callable[[int], None],
) -> None:
    """Write the tensors that `read` gives, in the order of `shapes`; the file appears under its name when it is whole.

    on_bytes is told the size of each tensor that was written. Raises OSError if the disk is full.
    """
    partial = file.with_suffix(".partial")
    with partial.open("wb") as out:
        out.write(_header(shapes, dtype))
        for name in shapes:
            content = read(name).to("cpu", dtype).contiguous().view(torch.uint8).numpy().reshape(-1).data
            out.write(content)
            on_bytes(len(content))
            del content  # before the next tensor is made
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    """Length and JSON of names, dtypes, shapes and places, padded with spaces."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
