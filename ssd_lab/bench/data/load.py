"""Prompts for a run: from a prepared file if there is one, else from the bundled sample."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssd_lab.bench.data.files import read_rows
from ssd_lab.bench.data.prompt import BenchPrompt
from ssd_lab.bench.data.registry import Dataset, find_dataset
from ssd_lab.bench.data.sources import read_prompt, row_place
from ssd_lab.errors import DatasetError
from ssd_lab.settings import settings


@dataclass(frozen=True)
class Place:
    """Where the prompts of a set are read from."""

    kind: Literal["prepared", "bundled"]
    file: Path


def load_prompts(
    dataset: str,
    count: int | None,
    *,
    offset: int = 0,
    seed: int | None = None,
    folder: Path | None = None,
) -> list[BenchPrompt]:
    """`count` prompts of a set, from row `offset` on; None takes all that are left.

    seed: shuffle first, so that slices of one seed do not overlap; the order depends on the rows' ids and the seed
    only. folder: prepared sets; None takes SSD_DATASET_DIR, and the bundled sample where that has no such set. Raises
    DatasetError if there are fewer rows than asked for: rows are never repeated.
    """
    if offset < 0 or (count is not None and count < 1):
        raise DatasetError(f"{count} rows from row {offset} on: a count is at least 1, an offset at least 0")
    chosen = find_dataset(dataset)
    place = locate(dataset, folder=folder)
    rows = list(read_file(place.file, chosen))
    wanted = max(len(rows) - offset, 1) if count is None else count
    if offset + wanted > len(rows):
        raise DatasetError(_too_few(chosen, place, len(rows), wanted, offset))
    if seed is not None:
        rows.sort(key=lambda prompt: hashlib.sha256(f"{seed}/{prompt.id}".encode()).digest())
    return rows[offset : offset + wanted]


def locate(dataset: str, *, folder: Path | None = None) -> Place:
    """The file that `load_prompts` reads. Raises DatasetError that says how to get the set."""
    chosen = find_dataset(dataset)
    searched = folder if folder is not None else settings().dataset_dir
    if searched is not None:
        found = prepared_file(chosen.name, searched)
        if found is not None:
            return Place("prepared", found)
        if folder is not None:
            raise DatasetError(
                f"{folder} holds no {chosen.name}: neither {chosen.name}/{chosen.name}.jsonl, nor "
                f"{chosen.name}/{chosen.name}_data_*.jsonl, nor {chosen.name}.jsonl: {_how_to_get(chosen, folder)}"
            )
    if chosen.sample_file.is_file():
        return Place("bundled", chosen.sample_file)
    why = f" ({chosen.not_bundled})" if chosen.not_bundled else ""
    where = "SSD_DATASET_DIR is not set" if searched is None else f"SSD_DATASET_DIR ({searched}) has none"
    raise DatasetError(
        f"{chosen.name} does not come with the package{why}, and {where}: {_how_to_get(chosen, searched)}"
    )


def own_file(name: str, folder: Path) -> Path:
    """Where `data prepare` puts a set."""
    return folder / name / f"{name}.jsonl"


def prepared_file(name: str, folder: Path) -> Path | None:
    """A set's file of prompts below a folder: ours, the reference system's largest, or `<name>.jsonl`."""
    own = own_file(name, folder)
    if own.is_file():
        return own
    theirs = {
        int(match[1]): file
        for file in (folder / name).glob(f"{name}_data_*.jsonl")
        if (match := re.fullmatch(rf"{name}_data_(\d+)\.jsonl", file.name))
    }
    if theirs:
        return theirs[max(theirs)]
    flat = folder / f"{name}.jsonl"
    return flat if flat.is_file() else None


def read_file(file: Path, dataset: Dataset, first_number: int = 0) -> Iterator[BenchPrompt]:
    """The prompts of one file, in order; ids are numbered from first_number on where rows have none of their own."""
    for number, (where, row) in enumerate(read_rows(file), first_number):
        yield read_prompt(
            row,
            dataset=dataset.name,
            read_row=dataset.read_row,
            place=row_place(file.name, number),
            where=where,
        )


def _too_few(dataset: Dataset, place: Place, rows: int, wanted: int, offset: int) -> str:
    asked = f"{wanted} from row {offset} on" if offset else str(wanted)
    left = max(rows - offset, 0)
    advice = f"ask for at most {left}" if left else f"take an offset below {rows}"
    if place.kind == "bundled":
        advice += f", or get the whole set: {_how_to_get(dataset, settings().dataset_dir)}"
    return f"{dataset.name} has {rows} {place.kind} rows ({place.file}), and {asked} were asked for: {advice}"


def _how_to_get(dataset: Dataset, folder: Path | None) -> str:
    command = f"`ssd-lab data prepare {dataset.name}"
    if folder is None:
        return f"{command} --out FOLDER` and set SSD_DATASET_DIR=FOLDER"
    return f"{command} --out {folder}`"
