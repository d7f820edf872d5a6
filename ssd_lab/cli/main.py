"""The `ssd-lab` program: its commands, and what happens when one fails. Nothing heavy is imported before it is used."""

from __future__ import annotations

import importlib
import traceback
import warnings
from contextvars import ContextVar
from typing import Any

import typer
from typer.core import TyperGroup

from ssd_lab import __version__
from ssd_lab.cli.interrupts import INTERRUPTED, begun
from ssd_lab.cli.output import json_wanted, report_error, say_interrupted, say_warning, want_json
from ssd_lab.errors import ConfigError, SsdLabError

COMMANDS = {
    "run": "Generate text with one strategy, and show what it took.",
    "chat": "Talk with a model, here or behind a server, and see where each token came from.",
    "compare": "Run several strategies on the same prompts, side by side.",
    "view": "Make one HTML file of recorded rounds: step through trees, text, cache, acceptance and timeline.",
    "check": "Compare strategies with autoregressive decoding: token for token, and path by path in distribution.",
    "tune": "Pick strategy, k, schedule and fallback for your prompts and machine, in seconds.",
    "explain": "Why a run was as fast as it was, which term to blame if speculation did not pay, and when to switch it "
    "off.",
    "simulate": "What recorded or made-up rounds would cost on a machine: tokens per second, and where the time goes.",
    "profile": "Measure this machine: bandwidth, phases of a round by rows and context, and a roofline table.",
    "serve": "Put models behind OpenAI's API, with metrics and a live page (extra `serve`).",
    "reproduce": "The figures of the Saguaro paper beside ours: rounds recorded here, and the virtual clock.",
    "strategies": "List the strategies, or show one with its fields.",
    "settings": "Show each setting of this machine, and where its value came from.",
    "demo": "Text from the bundled models with async tree speculation, then a comparison.",
    "notebooks": "Copy the tutorials to a folder of yours and open them in JupyterLab.",
}
GROUPS = {
    "models": "List the bundled models, check a folder, .gguf file or hub id, or inflate one to full size.",
    "data": "The prompts of benchmarks: list and prepare them.",
    "train": "Train what drafts: an EAGLE3 head or a small draft for any target (a GPU is wanted).",
    "bench": "Measure a strategy on real prompts (flags as the reference's bench.py); list, compare, report.",
}


_traceback_wanted: ContextVar[bool] = ContextVar("traceback_wanted", default=False)
USAGE_ERRORS: Any = typer.BadParameter.__bases__  # the class of them all, which typer has no public name for
GO_ON = ("train", "reproduce")  # given again, they go on where they were


class LazyCommands(TyperGroup):
    """Lists every command and imports the file of the one that is asked for.

    Turns our errors, and those of places that cannot be read or written, into one line and exit code 2, and Ctrl-C into
    a line and exit code 130.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """An option that is wrong may stand before `--json`, so that is looked for first."""
        want_json("--json" in args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The chosen command itself, in place of what the list shows."""
        name, listed, rest = super().resolve_command(ctx, args)
        command = None if listed is None else _load(listed.name)
        begun()
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except USAGE_ERRORS as error:
            if not json_wanted():
                raise
            raise typer.Exit(report_error(ConfigError(error.format_message()))) from error
        except SsdLabError as error:
            if _traceback_wanted.get():
                traceback.print_exception(error)
            raise typer.Exit(report_error(error)) from error
        except BrokenPipeError:  # nobody reads on: typer knows
            raise
        except OSError as error:
            raise typer.Exit(report_error(ConfigError(_said(error)))) from error
        except KeyboardInterrupt as error:
            say_interrupted(str(error), goes_on=ctx.invoked_subcommand in GO_ON)
            raise typer.Exit(INTERRUPTED) from error


def _said(error: OSError) -> str:
    """What could not be read or written, and why."""
    reason = error.strerror or str(error)
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{reason}: make room there, or name another place"


def _load(name: Any) -> Any:
    """A command from its own file; the groups have an app of several."""
    module = importlib.import_module(f"ssd_lab.cli.{name}")
    if name in GROUPS:
        command = typer.main.get_command(module.app)
    else:
        single = typer.Typer(add_completion=False)
        single.command()(module.command)
        command = typer.main.get_command(single)
    command.help = (COMMANDS | GROUPS)[name]
    return command


app = typer.Typer(
    name="ssd-lab",
    cls=LazyCommands,
    help="Understand, change and measure speculative decoding of language models.",
    no_args_is_help=True,
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
    traceback_: bool = typer.Option(
        False, "--traceback", help="Before the command: show where an error came from, your own code's too."
    ),
) -> None:
    _traceback_wanted.set(traceback_)


def _listed() -> None:
    """Stands in the list for a command that is not imported yet."""


for _name, _help in (COMMANDS | GROUPS).items():
    app.command(_name, help=_help)(_listed)


def main() -> None:
    """The program, once it is imported."""
    warnings.showwarning = say_warning
    app(prog_name="ssd-lab")
