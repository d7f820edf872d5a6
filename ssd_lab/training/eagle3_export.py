"""A trained EAGLE3 head as a checkpoint folder in SafeAILab's layout, with a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssd_lab.display.tables import Table
from ssd_lab.models.config import ModelConfig
from ssd_lab.training.card import CardFacts, measured_table, run_rows, table, usage
from ssd_lab.training.eagle3 import Eagle3Training
from ssd_lab.training.eagle3_model import TrainableHead
from ssd_lab.training.hf_files import save_weights

WEIGHTS = "model.safetensors"


def save_head(head: TrainableHead, target: ModelConfig, draft_ids: Tensor | None, folder: Path) -> None:
    """Write config.json and model.safetensors (bfloat16).

    The embedding is the target's and is left out, and so is the output head of a head with the whole vocabulary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = head.config.to_hf(target)
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tensors = {n: value.detach().to("cpu", torch.bfloat16).contiguous() for n, value in head.state_dict().items()}
    if draft_ids is not None:
        ids = draft_ids.cpu()
        tensors["d2t"] = ids - torch.arange(len(ids))
        tensors["t2d"] = torch.zeros(target.vocab_size, dtype=torch.bool).index_fill_(0, ids, True)
    save_weights(tensors, folder / WEIGHTS, folder / "config.json")


def write_card(
    folder: Path,
    head: TrainableHead,
    training: Eagle3Training,
    facts: CardFacts,
    records: Sequence[Mapping[str, float]],
) -> None:
    """README.md: what the head is, what it was trained on, its losses and what was measured."""
    config, run = head.config, training.run
    size = (folder / WEIGHTS).stat().st_size / 1e6
    vocabulary = "the target's whole one, with the target's own output head (`lm_head` is not stored)"
    if config.draft_vocab_size is not None:
        vocabulary = f"{config.draft_vocab_size} of the target's tokens, the most frequent of the training text"
    loss = (
        f"soft labels over {training.unroll_steps} unrolled steps, each weighing {training.step_decay:g} of the one "
        f"before; {training.acceptance_weight:.0%} of it total variation from {training.acceptance_from:.0%} of the "
        "run on"
    )
    heads = f"{config.num_heads} heads, {config.num_kv_heads} kv heads of {config.head_dim}"
    rows = [
        ("weights", f"{sum(p.numel() for p in head.parameters()):,} parameters, {size:.2f} MB in bfloat16"),
        ("features", f"residual stream at the input of layers {', '.join(map(str, config.feature_layers))}"),
        ("layer", f"{heads}, MLP {config.intermediate_size}"),
        ("draft vocabulary", vocabulary),
        *run_rows(facts, records[-1]),
        ("loss", loss),
        ("optimiser", f"Muon {run.matrix_lr:g}, AdamW {run.embedding_lr:g}, cosine to 0, seed {run.seed}"),
    ]
    lines = [
        f"# EAGLE3 head for {facts.target}",
        "",
        f"Drafts for {facts.target} from its features (EAGLE-3, Li et al., arXiv 2503.01840). Made by",
        "`ssd_lab.training.eagle3`; layout of SafeAILab and SpecForge. Of no use without that target.",
        "",
        table(rows),
        "",
        "## Losses",
        "",
        "In each step of the unrolled draft: cross-entropy with the target's distribution, and how often the likeliest",
        "token is the target's, in the first and the last batch.",
        "",
        _losses(records[0], records[-1], training.unroll_steps),
    ]
    lines += measured_table(facts, "this head")
    lines += usage(folder, facts.target, f"-s eagle3 --set head={folder.name}")
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _losses(first: Mapping[str, float], last: Mapping[str, float], unroll_steps: int) -> str:
    """A row for each step that was recorded."""
    steps = [step for step in range(unroll_steps) if f"loss_{step}" in first and f"loss_{step}" in last]
    rows = [
        [
            str(step + 1),
            *(f"{record[f'loss_{step}']:.3f}" for record in (first, last)),
            *(f"{record[f'right_{step}']:.1%}" for record in (first, last)),
        ]
        for step in steps
    ]
    heads = ["step", "loss at the start", "at the end", "right at the start", "at the end"]
    return Table(heads, rows).to_markdown()
