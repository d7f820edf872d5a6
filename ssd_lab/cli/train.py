"""`ssd-lab train`: make the bundled family again, or one of your own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json, show_progress, want_json
from ssd_lab.errors import ConfigError

NAME = "train"
HELP = "Train a model family: a target on a teacher's answers, and a draft distilled from it (needs a GPU)."


def command(
    output: Annotated[Path, typer.Argument(help="Folder for target/ and draft/; a run that stopped goes on there.")],
    teacher: Annotated[Path, typer.Option("--teacher", help="GGUF file of an instruct model that answers.")],
    prompts: Annotated[Path, typer.Option("--prompts", help=".jsonl with the prompts it answers.")],
    test_prompts: Annotated[
        list[Path] | None, typer.Option("--test-prompts", help=".jsonl kept out of training, measured on; repeatable.")
    ] = None,
    budget_s: Annotated[float | None, typer.Option("--budget-s", min=1, help="Seconds in all.")] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json_: options.Json = False,
) -> None:
    """Run every stage that is not done yet."""
    want_json(json_)
    missing = [str(path) for path in (teacher, prompts, *(test_prompts or ())) if not path.is_file()]
    if missing:
        raise ConfigError(f"no such file: {', '.join(missing)}")
    if not json_:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    from ssd_lab.training.family import train_family

    folder = train_family(
        output,
        teacher,
        prompts,
        seed=seed,
        budget=budget_s,
        device=device,
        progress=show_progress(),
        test_paths=test_prompts or (),
    )
    if json_:
        print_json({"target": str(folder / "target"), "draft": str(folder / "draft")})
    else:
        console().print(f"wrote {folder / 'target'} and {folder / 'draft'}", markup=False)
