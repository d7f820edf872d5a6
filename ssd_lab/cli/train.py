"""`ssd-lab train`: a draft or an EAGLE3 head for any target."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.options import DEVICE, REQUIRED, SEED, Group
from ssd_lab.cli.output import console, print_json, show_progress
from ssd_lab.common.places import ensure_writable

app = typer.Typer(no_args_is_help=True)

_HELPS = 1.05  # tokens a round, below which a draft costs more than it can give
CheckpointSteps = Annotated[
    int, typer.Option("--checkpoint-steps", min=1, help="Steps from one checkpoint to the next.")
]


def _answers(name: str, meaning: str, least: int, *more: str) -> Any:
    return typer.Option(name, *more, min=least, help=meaning, rich_help_panel="Training text")


def _training(name: str, meaning: str, least: int | None = None, most: int | None = None) -> Any:
    return typer.Option(name, min=least, max=most, help=meaning)


JOB: Group = {  # the fields of a TrainingJob
    "prompts": (Annotated[Path, _training("--prompts", ".jsonl (prompt or text) or .txt (one a line).")], REQUIRED),
    "output": (
        Annotated[Path, _training("--output", "Folder to make; a run that stopped goes on there.")], REQUIRED
    ),
    "target": (Annotated[str, _training("--target", "bundled, a hub id, a folder or a .gguf file.")], "bundled"),
    "test_prompts": (
        Annotated[Path | None, _training("--test-prompts", "Kept out and measured on. None: some of --prompts.")], None
    ),
    "answers_s": (
        Annotated[float | None, _answers("--answers-s", "Seconds for the target's answers. None: all prompts.", 1)],
        None,
    ),
    "passes": (Annotated[int, _answers("--passes", "Answers to each prompt, temperatures 0 to 1.", 1)], 4),
    "max_new_tokens": (Annotated[int, _answers("--max-tokens", "Longest answer.", 1, "-n")], 224),
    "max_length_tokens": (Annotated[int, _answers("--max-length", "Longest prompt with its answer.", 16)], 384),
    "budget_s": (Annotated[float, _training("--budget-s", "Seconds of training.", 1)], 600.0),
    "steps": (
        Annotated[int | None, _training("--steps", "Steps instead of seconds: such a run repeats exactly.", 1)], None
    ),
    "k": (Annotated[int, _training("--k", "Draft tokens of a round that is measured.", 1, 15)], 5),
    **SEED,
    "device": DEVICE["device"],
}  # fmt: skip


@app.command(help="Train an EAGLE3 head: it drafts from the target's own features.")
@options.takes(JOB, target="bundled")
def eagle3(
    fields: dict[str, Any],
    draft_vocab: Annotated[
        int | None, typer.Option("--draft-vocab", min=1, help="So many frequent tokens. None: all, the target's head.")
    ] = None,
    feature_layers: Annotated[
        list[int] | None,
        typer.Option("--feature-layer", help="Layer whose input is read; repeatable. None: low, middle, high."),
    ] = None,
    unroll: Annotated[int, typer.Option("--unroll", min=1, max=16, help="Draft steps unrolled in training.")] = 6,
    mlp: Annotated[int | None, typer.Option("--mlp", min=1, help="Width of the MLP. None: the target's.")] = None,
    checkpoint_steps: CheckpointSteps = 200,
    json_: options.Json = False,
) -> None:
    """Answers, training, measures, model card."""
    _begin(fields, json_)
    from ssd_lab.training.jobs import TrainingJob, train_eagle3_head

    job = TrainingJob(**fields, progress=show_progress())
    measured = train_eagle3_head(
        job,
        draft_vocab_size=draft_vocab,
        feature_layers=tuple(feature_layers) if feature_layers else None,
        unroll_steps=unroll,
        mlp_size=mlp,
        checkpoint_steps=checkpoint_steps,
    )
    _show(job.output, measured, json_, use=f"{_target(job.target)}-s eagle3 --set head={job.output}")


@app.command(help="Distil a small draft: a Llama with the target's vocabulary, half as wide and half as deep.")
@options.takes(JOB, target="bundled")
def draft(
    fields: dict[str, Any],
    hidden: Annotated[int | None, typer.Option("--hidden", min=8, help="Width. None: half the target's.")] = None,
    layers: Annotated[int | None, typer.Option("--layers", min=1, help="None: half the target's.")] = None,
    heads: Annotated[int | None, typer.Option("--heads", min=1, help="None: as the width asks for.")] = None,
    kv_heads: Annotated[int | None, typer.Option("--kv-heads", min=1, help="None: a quarter of the heads.")] = None,
    mlp: Annotated[
        int | None, typer.Option("--mlp", min=8, help="Width of the MLP. None: 2.19 times the width.")
    ] = None,
    checkpoint_steps: CheckpointSteps = 200,
    json_: options.Json = False,
) -> None:
    """Answers, training, measures, model card."""
    _begin(fields, json_)
    from ssd_lab.training.jobs import DraftSize, TrainingJob, train_small_draft

    job = TrainingJob(**fields, progress=show_progress())
    size = DraftSize(hidden, layers, heads, kv_heads, mlp)
    measured = train_small_draft(job, size, checkpoint_steps=checkpoint_steps)
    _show(job.output, measured, json_, use=f"{_target(job.target)}-s sync_chain --draft {job.output}")


def _begin(fields: dict[str, Any], json_: bool) -> None:
    output = fields["output"]
    ensure_writable(output if output.exists() else output.parent, "--output", folder=True)
    if not json_:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


def _target(target: str) -> str:
    return "" if target == "bundled" else f"--target {target} "


def _show(output: Path, measured: dict[str, Any], json_: bool, *, use: str) -> None:
    """The result, what it is good for, and how it is used."""
    if json_:
        print_json({"folder": str(output), **measured})
        return
    out, each = console(), measured["tokens_per_round"]
    out.print(
        f"wrote {output}: {each:.2f} tokens per round at k = {measured['k']} (README.md there)",
        markup=False,
        soft_wrap=True,
    )
    if each < _HELPS:
        said = "next to none of its tokens is kept: it makes nothing faster; train longer, or on more text"
    else:
        said = f'try it: ssd-lab run "..." {use}'
    out.print(said, markup=False, soft_wrap=True)
