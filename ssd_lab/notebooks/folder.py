"""Where the notebooks are, and how they get into a folder of the reader's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssd_lab.errors import ConfigError

_INSTALLED = Path(__file__).parent / "files"  # written there when a wheel is built
_CHECKOUT = Path(__file__).parents[2] / "notebooks"


@dataclass(frozen=True)
class Copied:
    """What became of one notebook.

    action: `copied`; `same` (there already, unchanged); `kept` (there already and differs: the reader's work, left
    alone); `replaced` (the reader's was moved to `backup`).
    """

    path: Path
    action: Literal["copied", "same", "kept", "replaced"]
    backup: Path | None = None


def notebook_paths() -> list[Path]:
    """The notebooks of this installation, in their order; raises ConfigError if it has none."""
    for folder in (_INSTALLED, _CHECKOUT):
        found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
        if found:
            return found
    raise ConfigError(
        f"no notebooks in {_INSTALLED} or {_CHECKOUT}: this installation is incomplete; install ssd_lab again"
    )


def copy_notebooks(to: str | Path, *, overwrite: bool = False) -> list[Copied]:
    """Copy every notebook into the folder `to`, which is made if it is missing.

    A notebook that is there and differs is kept; with `overwrite` it is renamed first, so nothing is ever lost. Raises
    ConfigError if `to` is a file or cannot be written.
    """
    folder = Path(to).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_copy(source, folder / source.name, overwrite) for source in notebook_paths()]
    except OSError as error:
        raise ConfigError(f"cannot put the notebooks into {folder}: {error}; name another folder") from error


def _copy(source: Path, path: Path, overwrite: bool) -> Copied:
    content = source.read_bytes()
    if not path.exists():
        path.write_bytes(content)
        return Copied(path, "copied")
    if path.read_bytes() == content:
        return Copied(path, "same")
    if not overwrite:
        return Copied(path, "kept")
    backup = _unused(path)
    path.rename(backup)
    path.write_bytes(content)
    return Copied(path, "replaced", backup)


def _unused(path: Path) -> Path:
    number = 1
    while (backup := path.with_name(f"{path.stem}.before-{number}{path.suffix}")).exists():
        number += 1
    return backup
