"""The model card of a distilled draft."""

from __future__ import annotations

import json
from pathlib import Path

from ssd_lab.models.config import ModelConfig
from ssd_lab.training.card import CardFacts, measured_table, run_rows, table
from ssd_lab.training.config import TrainConfig


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
        *table(rows),
        *measured_table(facts, "this draft"),
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
