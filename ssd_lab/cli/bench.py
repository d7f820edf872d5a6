"""`ssd-lab bench`: measure strategies on real prompts; list, compare and report what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ssd_lab.cli import bench_multi, bench_serve, options
from ssd_lab.cli.output import console, print_json, want_json
from ssd_lab.errors import ConfigError

MEASURE = "run"


class MeasureByDefault(TyperGroup):
    """`ssd-lab bench --size 8` is `ssd-lab bench run --size 8`: flags need no verb before them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb where there is none."""
        if not args or args[0] not in self.commands:
            args = [MEASURE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=MeasureByDefault)

RunTableFile = Annotated[
    Path | None, typer.Option("--table", help="The run table. None: results/bench.sqlite.", show_default=False)
]


Flags = Annotated[list[str] | None, typer.Argument(metavar="FLAGS")]
FLAGS: Any = {"add_help_option": False, "context_settings": {"ignore_unknown_options": True, "help_option_names": []}}
ASKS_FOR_HELP = {"--help", "-h"}


@app.command(MEASURE, help="Measure (the verb may be left out); `ssd-lab bench --help` lists the flags.", **FLAGS)
def run(flags: Flags = None) -> None:
    """Measure what the flags say, print the figures and keep them in the run table."""
    given = flags or []
    if ASKS_FOR_HELP & {*given}:
        from ssd_lab.bench.flags import help_text

        typer.echo(help_text())
        typer.echo(
            "Beside it: ssd-lab bench serve | multi-gpu | list | compare A B | report RUN... --out DIR (--help)."
        )
        return
    want_json("--json" in given)
    from ssd_lab.cli.bench_run import measure

    measure(given)


app.command("multi-gpu", help="The whole report of several GPUs, in pieces that go on where they ended.")(
    bench_multi.command
)
app.command("serve", help="Load on an OpenAI-compatible server, others beside it (--peer-url).")(bench_serve.command)


@app.command("list", help="Show the runs of a table.")
def list_(
    table: RunTableFile = None,
    group: Annotated[str | None, typer.Option("--group", help="Only the runs of this group.")] = None,
    json_: options.Json = False,
) -> None:
    """One row a run, oldest first."""
    from ssd_lab.cli.bench_tables import listing

    rows = _open(table).list(group)
    if json_:
        print_json(
            [
                {"id": row.run_id, "time": row.time, "name": row.name, "group": row.group, "cell": row.cell}
                | {"config": row.config.model_dump(mode="json", exclude_defaults=True)}
                for row in rows
            ]
        )
        return
    console().print(listing(rows))


@app.command(help="Compare two runs of a table, by id or name: ratios (second over first) with 95 % intervals.")
def compare(
    first: Annotated[str, typer.Argument(help="Id or name of a run.")],
    second: Annotated[str, typer.Argument(help="Id or name of another.")],
    table: RunTableFile = None,
    json_: options.Json = False,
) -> None:
    """Print one table for each data set that both have."""
    from ssd_lab.bench.comparison import compare_runs
    from ssd_lab.cli.bench_tables import comparison_tables

    runs = _open(table)
    comparison = compare_runs(runs.get(first), runs.get(second), (first, second))
    if json_:
        print_json(comparison.as_dict())
    else:
        console().print(comparison_tables(comparison))


@app.command(help="Write a report of runs: report.md with figures beside it, and report.html with them inside.")
def report(
    runs: Annotated[list[str], typer.Argument(help="Ids or names; the first is what the others are compared with.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.")],
    title: Annotated[str, typer.Option("--title", help="The report's heading.")] = "Benchmark",
    html: Annotated[bool, typer.Option("--html/--no-html", help="Write the HTML page too.")] = True,
    table: RunTableFile = None,
    json_: options.Json = False,
) -> None:
    """Write the files and say where they are."""
    from ssd_lab.bench.report import write_report

    source = _open(table)
    written = write_report([(name, source.get(name)) for name in runs], out, title=title, html=html)
    if json_:
        print_json({"files": [str(file) for file in written]})
        return
    for file in written:
        console().print(str(file), soft_wrap=True)


def _open(table: Path | None) -> Any:
    from ssd_lab.bench.store import DEFAULT_TABLE, RunTable

    path = table or DEFAULT_TABLE
    if not path.is_file():
        raise ConfigError(f"there is no run table at {path}: run a benchmark first, or name one with --table")
    return RunTable(path)
