"""`data prepare`: from the hub's datasets, or from files at hand, to one file of prompts a set."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ssd_lab.bench.data.files import SUFFIXES, is_data_file
from ssd_lab.bench.data.hub import download, matching
from ssd_lab.bench.data.load import own_file, prepared_file, read_file
from ssd_lab.bench.data.prompt import BenchPrompt
from ssd_lab.bench.data.registry import DATASETS, Dataset, find_dataset
from ssd_lab.common.progress import progress_bar
from ssd_lab.errors import DatasetError

MOST_ROWS = 10_000


@dataclass(frozen=True)
class PreparedSet:
    """What was written, and from where."""

    dataset: str
    file: Path
    rows: int
    source: str


def prepare(
    dataset: Dataset,
    out: Path,
    *,
    source: list[Path] | None = None,
    rows: int = MOST_ROWS,
    progress: bool = False,
) -> PreparedSet:
    """Write the first `rows` prompts of a set to `out/<name>/<name>.jsonl`, whole or not at all.

    source: files of rows; None downloads the hub's. Raises DatasetError.
    """
    files = download(dataset, progress=progress) if source is None else source
    target = own_file(dataset.name, out)
    prompts = islice(_read_all(files, dataset), rows)
    written = write_prompts(_counted(prompts, dataset.name, progress), target)
    named = f"the hub's {dataset.repo}" if source is None else ", ".join(map(str, source))
    return PreparedSet(dataset.name, target, written, named)


def prepare_many(
    names: list[str],
    out: Path,
    *,
    source: Path | None = None,
    rows: int = MOST_ROWS,
    progress: bool = False,
) -> tuple[list[PreparedSet], dict[str, DatasetError]]:
    """Prepare several sets, and go on after one that fails; returns what was written and what failed.

    names: none means all sets, or all that `source` holds. source: a folder, or with one name a file; None downloads.
    Raises DatasetError for an unknown name, before anything is done, and for a source that is not there or empty.
    """
    chosen = [find_dataset(name) for name in names] or list(DATASETS.values())
    done: list[PreparedSet] = []
    failed: dict[str, DatasetError] = {}
    for dataset in chosen:
        files = None if source is None else find_source(dataset, source, alone=len(names) == 1)
        if files == [] and not names:
            continue
        try:
            if files == []:
                raise DatasetError(_not_found(dataset, source))
            done.append(prepare(dataset, out, source=files, rows=rows, progress=progress))
        except DatasetError as error:
            failed[dataset.name] = error
    if not done and not failed:
        raise DatasetError(f"{source} holds none of {', '.join(DATASETS)}: name a set, if it is only called otherwise")
    return done, failed


def find_source(dataset: Dataset, given: Path, *, alone: bool) -> list[Path]:
    """The files of a set below a folder, or none.

    Looked for: prompts already prepared (ours, the reference system's, `<name>.jsonl`), then a sub-folder named after
    the set or its repository and laid out like that, or holding one file, then a file named after the set. alone: no
    other set is asked for, so `given` itself may be the file, or laid out as the repository.
    """
    if given.is_file():
        return [given] if alone else []
    if not given.is_dir():
        raise DatasetError(f"{given} does not exist: --from takes a folder, or one file if one set is named")
    ready = prepared_file(dataset.name, given)
    if ready is not None:
        return [ready]
    for folder in (given / dataset.name, given / dataset.repo, given / dataset.repo.partition("/")[2]):
        found = matching(dataset, folder) or _only_file(folder)
        if found:
            return found
    if alone and (found := matching(dataset, given)):
        return found
    return [file for file in sorted(given.iterdir()) if is_data_file(file) and _stem(file) == _plain(dataset.name)][:1]


def write_prompts(prompts: Iterable[BenchPrompt], file: Path) -> int:
    """Write lines to a file that appears, or replaces its predecessor, only once all of them are on the disk.

    Returns the number of lines. Raises DatasetError for no prompt at all and for an id that comes twice.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part")
    except OSError as error:
        raise DatasetError(f"{file.parent} cannot be written to ({error}): give another --out") from error
    part = Path(name)
    try:
        ids: set[str] = set()
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as lines:
            for prompt in prompts:
                if prompt.id in ids:
                    raise DatasetError(f"{prompt.dataset}: two rows have the id {prompt.id!r}")
                ids.add(prompt.id)
                lines.write(prompt.to_line())
            lines.flush()
            os.fsync(lines.fileno())
        if not ids:
            raise DatasetError(f"no row was found for {file.name}, so it was not written")
        part.chmod(0o644)
        part.replace(file)
    except OSError as error:
        raise DatasetError(f"{file} could not be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return len(ids)


def _counted(prompts: Iterable[BenchPrompt], description: str, progress: bool) -> Iterator[BenchPrompt]:
    with progress_bar(None, description, "row", enabled=progress) as bar:
        for prompt in prompts:
            yield prompt
            bar.update(1)


def _read_all(files: list[Path], dataset: Dataset) -> Iterator[BenchPrompt]:
    number = 0
    for file in files:
        for prompt in read_file(file, dataset, first_number=number):
            number += 1
            yield prompt


def _not_found(dataset: Dataset, source: Path | None) -> str:
    return (
        f"{source} holds no {dataset.name}: looked for {dataset.name}.jsonl (or .json, .parquet, .jsonl.gz, .json.gz), "
        f"and for a folder {dataset.name} with one such file, with {dataset.name}_data_*.jsonl, or laid out as the "
        f"hub's {dataset.repo} ({', '.join(dataset.files)})"
    )


def _only_file(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = [file for file in folder.iterdir() if is_data_file(file)]
    return files if len(files) == 1 else []


def _stem(file: Path) -> str:
    suffix = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if file.name.endswith(suffix))
    return _plain(file.name.removesuffix(suffix))


def _plain(name: str) -> str:
    """`HumanEval`, `human-eval` and `humaneval` are one name."""
    return name.lower().replace("-", "").replace("_", "")
