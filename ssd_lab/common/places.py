"""Places to write to: tried before the work that fills them, and filled whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ssd_lab.errors import ConfigError

_TRIED_BYTES = 1 << 16


def ensure_writable(place: str | os.PathLike[str], option: str, *, folder: bool = False) -> None:
    """Write something beside it and remove that again; a folder is made if it is not there. Raises ConfigError that
    names the option if nothing can be written there.
    """
    path = Path(place)
    home = path if folder else path.parent
    try:
        if folder:
            home.mkdir(parents=True, exist_ok=True)
        elif path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        with _beside(home / "tried") as unfinished:
            unfinished.write_bytes(bytes(_TRIED_BYTES))
    except OSError as error:
        raise ConfigError(
            f"{option} {path} cannot be written: {error.strerror or error}: name another place"
        ) from error


def write_text(place: str | os.PathLike[str], text: str) -> None:
    """Replace the file with this text once all of it is written. Raises OSError, and leaves what was there, if it
    cannot be.
    """
    write_whole(place, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def write_whole(place: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside the place, and put it there. Raises what `write` raises."""
    path = Path(place)
    with _beside(path) as unfinished:
        write(unfinished)
        os.replace(unfinished, path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name for an unfinished file, which is gone afterwards; its removal hides no error."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
