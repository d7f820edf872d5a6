"""`ssd-lab data`: list and prepare the prompts of benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, folded, print_json, show_progress
from ssd_lab.errors import ConfigError, DatasetError

app = typer.Typer(no_args_is_help=True)

Folder = Annotated[
    Path | None, typer.Option("--folder", help="Folder of prepared sets. None: SSD_DATASET_DIR.", show_default=False)
]


@app.command("list", help="Show each set's rows, bundled and prepared, its source and its licence.")
def list_(folder: Folder = None, json_: options.Json = False) -> None:
    """One row a set."""
    from ssd_lab.bench.data.listing import list_datasets

    rows = list_datasets(folder)
    if json_:
        print_json(rows)
        return
    shown, notes = [], []
    for row in rows:
        counts = (str(row["bundled_rows"] or "-"), str(row["prepared_rows"] or "-"))
        shown.append((row["name"], *counts, row["licence"], f"{row['source']} ({row['split']})"))
        if row["not_bundled"]:
            notes.append(f"{row['name']} is not bundled: {row['not_bundled']}")
        if row["prepared_file"]:
            notes.append(f"{row['name']} is read from {row['prepared_file']}")
    columns = ("name", "bundled", "prepared", "licence", "source")
    out = console()
    out.print(folded(columns, shown, left=len(columns)))
    for note in notes:
        out.print(note, markup=False, soft_wrap=True)


@app.command(help="Write sets as JSON lines, from the hub's datasets or from files at hand.")
def prepare(
    names: Annotated[
        list[str] | None, typer.Argument(help="Sets. None: all, or all that --from holds.", show_default=False)
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A folder with files of the sets, or one file for one set. None: the hub."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to. None: SSD_DATASET_DIR.", show_default=False)
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="The first so many rows of each set.")] = 10_000,
    json_: options.Json = False,
) -> None:
    """Write them; a set that fails does not keep the others from being written."""
    from ssd_lab.bench.data.prepare import prepare_many
    from ssd_lab.settings import settings

    target = out or settings().dataset_dir
    if target is None:
        raise ConfigError(
            "nowhere to write to: give --out FOLDER, and set SSD_DATASET_DIR=FOLDER so that benchmarks find it"
        )
    done, failed = prepare_many(names or [], target, source=source, rows=rows, progress=show_progress())
    if not failed:
        _show(done, json_)
        return
    if not json_ and done:
        _show(done, json_)
    written = f"; written: {', '.join(prepared.dataset for prepared in done)}" if done else ""
    raise DatasetError("; ".join(str(error) for error in failed.values()) + written)


def _show(done: list[Any], as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"dataset": each.dataset, "file": str(each.file), "rows": each.rows, "source": each.source}
                for each in done
            ]
        )
        return
    rows = [(each.dataset, str(each.rows), str(each.file), each.source) for each in done]
    console().print(folded(("name", "rows", "file", "from"), rows, left=4))
