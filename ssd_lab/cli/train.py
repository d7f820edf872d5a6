"""`ssd-lab train`: a draft or an EAGLE3 head for any target."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json, show_progress, want_json

app = typer.Typer(no_args_is_help=True)

_TEXT = "Training text"
Target = Annotated[str, typer.Option("--target", help="bundled, a hub id, a folder or a .gguf file.")]
Prompts = Annotated[Path, typer.Option("--prompts", help=".jsonl (prompt or text) or .txt (one a line).")]
Output = Annotated[Path, typer.Option("--output", help="Folder to make; a run that stopped goes on there.")]
TestPrompts = Annotated[
    Path | None, typer.Option("--test-prompts", help="Kept out and measured on. None: some of --prompts.")
]
AnswersS = Annotated[
    float | None,
    typer.Option(
        "--answers-s", min=1, help="Seconds for the target's answers. None: all prompts.", rich_help_panel=_TEXT
    ),
]
Passes = Annotated[
    int, typer.Option("--passes", min=1, help="Answers to each prompt, temperatures 0 to 1.", rich_help_panel=_TEXT)
]
MaxNew = Annotated[int, typer.Option("--max-tokens", "-n", min=1, help="Longest answer.", rich_help_panel=_TEXT)]
MaxLength = Annotated[
    int, typer.Option("--max-length", min=16, help="Longest prompt with its answer.", rich_help_panel=_TEXT)
]
BudgetS = Annotated[float, typer.Option("--budget-s", min=1, help="Seconds of training.")]
Steps = Annotated[
    int | None, typer.Option("--steps", min=1, help="Steps instead of seconds: such a run repeats exactly.")
]
Lookahead = Annotated[int, typer.Option("--k", min=1, max=15, help="Draft tokens of a round that is measured.")]
CheckpointSteps = Annotated[
    int, typer.Option("--checkpoint-steps", min=1, help="Steps from one checkpoint to the next.")
]


@app.command(help="Train an EAGLE3 head: it drafts from the target's own features.")
def eagle3(
    prompts: Prompts,
    output: Output,
    target: Target = "bundled",
    test_prompts: TestPrompts = None,
    draft_vocab: Annotated[
        int | None, typer.Option("--draft-vocab", min=1, help="So many frequent tokens. None: all, the target's head.")
    ] = None,
    feature_layers: Annotated[
        list[int] | None,
        typer.Option("--feature-layer", help="Layer whose input is read; repeatable. None: low, middle, high."),
    ] = None,
    unroll: Annotated[int, typer.Option("--unroll", min=1, max=16, help="Draft steps unrolled in training.")] = 6,
    mlp: Annotated[int | None, typer.Option("--mlp", min=1, help="Width of the MLP. None: the target's.")] = None,
    answers_s: AnswersS = None,
    passes: Passes = 4,
    max_tokens: MaxNew = 224,
    max_length: MaxLength = 384,
    budget_s: BudgetS = 600.0,
    steps: Steps = None,
    k: Lookahead = 5,
    checkpoint_steps: CheckpointSteps = 200,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json_: options.Json = False,
) -> None:
    """Answers, training, measures, model card."""
    _begin(json_)
    from ssd_lab.training.jobs import TrainingJob, train_eagle3_head

    job = TrainingJob(
        target, prompts, output, test_prompts, answers_s, budget_s, steps, max_tokens, max_length, passes, k, seed,
        device, show_progress(),
    )  # fmt: skip
    measured = train_eagle3_head(
        job,
        draft_vocab_size=draft_vocab,
        feature_layers=tuple(feature_layers) if feature_layers else None,
        unroll_steps=unroll,
        mlp_size=mlp,
        checkpoint_steps=checkpoint_steps,
    )
    _show(output, measured, json_)


@app.command(help="Distil a small draft: a Llama with the target's vocabulary, half as wide and half as deep.")
def draft(
    prompts: Prompts,
    output: Output,
    target: Target = "bundled",
    test_prompts: TestPrompts = None,
    hidden: Annotated[int | None, typer.Option("--hidden", min=8, help="Width. None: half the target's.")] = None,
    layers: Annotated[int | None, typer.Option("--layers", min=1, help="None: half the target's.")] = None,
    heads: Annotated[int | None, typer.Option("--heads", min=1, help="None: as the width asks for.")] = None,
    kv_heads: Annotated[int | None, typer.Option("--kv-heads", min=1, help="None: a quarter of the heads.")] = None,
    mlp: Annotated[
        int | None, typer.Option("--mlp", min=8, help="Width of the MLP. None: 2.19 times the width.")
    ] = None,
    answers_s: AnswersS = None,
    passes: Passes = 4,
    max_tokens: MaxNew = 224,
    max_length: MaxLength = 384,
    budget_s: BudgetS = 600.0,
    steps: Steps = None,
    k: Lookahead = 5,
    checkpoint_steps: CheckpointSteps = 200,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json_: options.Json = False,
) -> None:
    """Answers, training, measures, model card."""
    _begin(json_)
    from ssd_lab.training.jobs import DraftSize, TrainingJob, train_small_draft

    job = TrainingJob(
        target, prompts, output, test_prompts, answers_s, budget_s, steps, max_tokens, max_length, passes, k, seed,
        device, show_progress(),
    )  # fmt: skip
    size = DraftSize(hidden, layers, heads, kv_heads, mlp)
    _show(output, train_small_draft(job, size, checkpoint_steps=checkpoint_steps), json_)


def _begin(json_: bool) -> None:
    want_json(json_)
    if not json_:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


def _show(output: Path, measured: dict[str, Any], json_: bool) -> None:
    if json_:
        print_json({"folder": str(output), **measured})
        return
    console().print(
        f"wrote {output}: {measured['tokens_per_round']:.2f} tokens per round at k = {measured['k']} (README.md there)",
        markup=False,
        soft_wrap=True,
    )
