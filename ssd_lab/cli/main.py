"""The `ssd-lab` program: its commands, and what happens when one fails. Nothing heavy is imported before it is used."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from ssd_lab import __version__
from ssd_lab.cli import (
    bench,
    check,
    compare,
    data,
    demo,
    explain,
    models,
    notebooks,
    profile,
    reproduce,
    run,
    settings,
    simulate,
    strategies,
    train,
    tune,
    view,
)
from ssd_lab.cli.output import INTERRUPTED, report_error
from ssd_lab.errors import SsdLabError


class ErrorReportingGroup(TyperGroup):
    """Turns our errors into one line and exit code 2, and Ctrl-C into exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except SsdLabError as error:
            raise typer.Exit(report_error(error)) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    name="ssd-lab",
    cls=ErrorReportingGroup,
    help="Understand, change and measure speculative decoding of language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ssd-lab {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_version, is_eager=True),
) -> None:
    pass


for module in (
    run, compare, view, check, tune, explain, simulate, profile, reproduce, strategies, settings, demo, notebooks,
):  # fmt: skip
    app.command(name=module.NAME, help=module.HELP)(module.command)
app.add_typer(models.app)
app.add_typer(data.app)
app.add_typer(train.app)
app.add_typer(bench.app)


def main() -> None:
    """Entry point of the installed script."""
    app(prog_name="ssd-lab")
