"""Open a GGUF file, or all parts of a split one, and say in words what cannot be read before any weight is."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files.weight_files import SHARD, is_lfs_pointer

VERSIONS = (2, 3)
_LFS_OR_HTML = re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE)
_OLDER = {b"lmgg", b"tjgg", b"algg", b"fmgg"}  # GGML, GGJT, GGLA, GGMF: what llama.cpp wrote before GGUF


def open_parts(path: Path) -> list[Any]:
    """A `gguf.GGUFReader` of each part, the one with the entries first.

    Raises ModelLoadError for files that are truncated, of another format, version or byte order, for missing parts and
    for types of tensors that are not read.
    """
    first = _open(path)
    count = int(entry(first, "split.count", 1))
    if count <= 1:
        parts = [first]
    else:
        parts = [_open(part) for part in _names_of_parts(path, count)]
        expected = entry(parts[0], "split.tensors.count", None)
        found = sum(len(part.tensors) for part in parts)
        if expected is not None and found != int(expected):
            raise ModelLoadError(
                f"{path} and its other parts hold {found} tensors, not {expected}: download them again"
            )
    for part in parts:
        _check_types(path, part)
    return parts


def entry(reader: Any, key: str, default: Any) -> Any:
    """The value of an entry of the file, or the default."""
    field = reader.get_field(key)
    return default if field is None else field.contents()


@cache
def reader_class() -> Any:
    """The library's reader over a plain array: a slice of a memory map takes three times as long, and it takes several
    slices for each token of the vocabulary.
    """
    import gguf

    class Reader(gguf.GGUFReader):
        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data = np.asarray(mapped)

    return Reader


def _open(path: Path) -> Any:
    _check_header(path)
    try:
        return reader_class()(path)
    except Exception as error:  # the library raises whatever it stumbles over
        if "GGMLQuantizationType" in str(error):
            raise ModelLoadError(
                f"{path} is quantised in a way that the installed gguf package does not know ({error}): update it "
                "(pip install -U gguf), or take a file in Q8_0, Q4_K_M or F16"
            ) from error
        raise ModelLoadError(f"{path} is truncated or no GGUF file ({error}): download it again") from error


def _check_header(path: Path) -> None:
    """What the first bytes tell."""
    with path.open("rb") as file:
        start = file.read(64)
    if is_lfs_pointer(path):
        raise ModelLoadError(f"{path} is a pointer that Git LFS left: run `git lfs pull` in {path.parent}")
    if _LFS_OR_HTML.match(start):
        raise ModelLoadError(f"{path} is a web page, not a GGUF file: download the file itself (`hf download`)")
    if start[:4] in _OLDER:
        raise ModelLoadError(f"{path} is in a format that llama.cpp wrote before GGUF: take a GGUF file of the model")
    if len(start) < 24 or start[:4] != b"GGUF":
        raise ModelLoadError(f"{path} is truncated or no GGUF file (it begins with {start[:4]!r}): download it again")
    version = int.from_bytes(start[4:8], "little")
    if version & 0xFFFF == 0:
        raise ModelLoadError(
            f"{path} is a big-endian GGUF file, which is not read: take the usual one (gguf-py's gguf_convert_endian "
            "makes one of the other)"
        )
    if version not in VERSIONS:
        raise ModelLoadError(
            f"{path} is GGUF version {version}, and {' and '.join(map(str, VERSIONS))} are read: take a newer file, or "
            "convert it again"
        )


def _names_of_parts(path: Path, count: int) -> list[Path]:
    """All parts of the split file that this is one of. Raises ModelLoadError that names those which are missing."""
    match = SHARD.search(path.name)
    if match is None or int(match[2]) != count:
        raise ModelLoadError(
            f"{path} is one of {count} parts: keep the names that llama.cpp gave them (NAME-00001-of-{count:05d}.gguf)"
        )
    stem = path.name[: match.start()]
    parts = [path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ModelLoadError(f"{path} is one of {count} parts, and {', '.join(missing)} are missing beside it")
    return parts


def _check_types(path: Path, reader: Any) -> None:
    wrong = {tensor.tensor_type.name: tensor.name for tensor in reader.tensors if not _is_read(tensor.tensor_type)}
    if wrong:
        kinds = ", ".join(f"{kind} (such as {name})" for kind, name in sorted(wrong.items()))
        raise ModelLoadError(
            f"{path} is quantised in a way that is not read: {kinds}; take a file in Q8_0, Q4_K_M, F16 or another of "
            "llama.cpp's usual types"
        )


@cache
def _is_read(kind: Any) -> bool:
    """Does the library turn this type into numbers? Tried on one block of zeros."""
    import gguf

    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.quants.dequantize(np.zeros((1, block_bytes), dtype=np.uint8), kind)
    except (NotImplementedError, ValueError):
        return False
    return True
