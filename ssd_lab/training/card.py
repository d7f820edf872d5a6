"""The model card of a distilled draft, and what it has in common with an EAGLE3 head's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_lab.display.tables import Table
from ssd_lab.models.config import ModelConfig
from ssd_lab.training.config import TrainConfig


@dataclass(frozen=True)
class Measured:
    """Tokens per round on one set of prompts: of what was trained, and of another draft at the same k, if any."""

    prompts: int
    rounds: int
    ours: float
    agreement: float
    other_draft: float | None = None


@dataclass(frozen=True)
class CardFacts:
    """What a model card tells besides the geometry. data: where the prompts are from; seconds: of training."""

    target: str
    data: str
    documents: int
    tokens: int
    k: int
    measured: Mapping[str, Measured]
    hardware: str
    licence: str
    seconds: float


def table(rows: Sequence[tuple[str, str]]) -> str:
    """A table of two columns without a head."""
    return Table(["", ""], rows, sides=("left", "left")).to_markdown()


def run_rows(facts: CardFacts, last: Mapping[str, float]) -> list[tuple[str, str]]:
    """Training text and length of the run; `last` is the last record of its log."""
    steps = f"{last['step']:.0f} steps, {last['tokens'] / 1e6:.1f} M tokens with padding"
    length = f"{steps}, {facts.seconds:.0f} s on {facts.hardware}"
    return [
        ("training text", f"{facts.documents:,} answers of the target itself, {facts.tokens:,} tokens with prompts"),
        ("prompts", facts.data),
        ("training", length),
        ("licence", facts.licence),
    ]


def measured_table(facts: CardFacts, what: str) -> list[str]:
    """The section on tokens per round of `what`; empty if nothing was measured."""
    if not facts.measured:
        return []
    compared = any(one.other_draft is not None for one in facts.measured.values())
    heads = ["prompts", "number", "rounds", what, *(["the other draft"] if compared else []), "agreement"]
    explained = (
        f"Greedy, k = {facts.k}, on the target's greedy answers to prompts that were not trained on: accepted draft "
        "tokens plus one, over rounds that the end of an answer did not cut. Agreement: positions where the likeliest "
        "first draft token is the target's."
    )
    rows = []
    for name, one in facts.measured.items():
        other = ["-" if one.other_draft is None else f"{one.other_draft:.2f}"] if compared else []
        rows.append([name, str(one.prompts), str(one.rounds), f"{one.ours:.2f}", *other, f"{one.agreement:.1%}"])
    return ["", "## Tokens per round", "", explained, "", Table(heads, rows).to_markdown()]


def usage(folder: Path, target: str, options: str) -> list[str]:
    """How what was trained is used."""
    given = "" if target.startswith("the bundled") else f" --target {target}"
    command = f'ssd-lab run "..."{given} {options}'
    return ["", "## Use", "", "From the folder that holds this one:", "", "```bash", command, "```"]


def write_draft_card(folder: Path, shape: ModelConfig, run: TrainConfig, facts: CardFacts, log: Path) -> None:
    """README.md: what the draft is, what it was trained on, its losses and what was measured."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    first, last = records[0], records[-1]
    sizes = (shape.hidden_size, shape.num_layers, shape.num_heads, shape.num_kv_heads, shape.mlp_size)
    rows = [
        ("hidden / layers / heads / kv heads / MLP", " / ".join(map(str, sizes))),
        ("parameters (outside the embedding)", f"{shape.num_parameters:,} ({shape.num_non_embedding_parameters:,})"),
        *run_rows(facts, last),
        ("loss", "forward KL to the target's distribution; half of it total variation from 60 % of the run on"),
        ("KL at the start, at the end", f"{first['draft_kl']:.3f}, {last['draft_kl']:.3f}"),
        (
            "right in training at the start, at the end",
            f"{first['draft_agreement']:.1%}, {last['draft_agreement']:.1%}",
        ),
        ("optimiser", f"Muon {run.matrix_lr:g}, AdamW {run.embedding_lr:g}, cosine to 0, seed {run.seed}"),
    ]
    lines = [
        f"# A small draft for {facts.target}",
        "",
        f"Llama architecture with the vocabulary and tokenizer of {facts.target}, from which it was distilled by",
        "`ssd_lab.training.distill`.",
        "",
        table(rows),
        *measured_table(facts, "this draft"),
        *usage(folder, facts.target, f"-s sync_chain --draft {folder.name}"),
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
