"""A trained EAGLE3 head as a checkpoint folder in SafeAILab's layout, with a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssd_lab.training.config import ModelConfig
from ssd_lab.training.eagle3 import Eagle3Training
from ssd_lab.training.eagle3_model import TrainableHead

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Measured:
    """Tokens per round on one set of prompts: of the head, and of another draft at the same k, where there is one."""

    prompts: int
    rounds: int
    head: float
    agreement: float
    other_draft: float | None = None


@dataclass(frozen=True)
class CardFacts:
    """What the model card tells besides what is in the config."""

    target: str
    data: str
    documents: int
    tokens: int
    k: int
    measured: Mapping[str, Measured]
    hardware: str
    licence: str
    seconds: float


def save_head(
    head: TrainableHead,
    target: ModelConfig,
    draft_ids: Tensor | None,
    folder: Path,
    *,
    bos_id: int | None,
    eos_id: int | list[int],
) -> None:
    """Write config.json and model.safetensors (bfloat16).

    The embedding is the target's and is left out, and so is the output head of a head with the whole vocabulary.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    values = head.config.to_hf(target, bos_id=bos_id, eos_id=eos_id)
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tensors = {n: value.detach().to("cpu", torch.bfloat16).contiguous() for n, value in head.state_dict().items()}
    if draft_ids is not None:
        ids = draft_ids.cpu()
        tensors["d2t"] = ids - torch.arange(len(ids))
        tensors["t2d"] = torch.zeros(target.vocab_size, dtype=torch.bool).index_fill_(0, ids, True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def write_card(
    folder: Path, head: TrainableHead, training: Eagle3Training, facts: CardFacts, records: Sequence[Mapping[str, float]]
) -> None:
    """README.md: what the head is, what it was trained on, its losses and what was measured."""
    config, run = head.config, training.run
    first, last = records[0], records[-1]
    weights = (folder / WEIGHTS).stat().st_size / 1e6
    vocabulary = (
        f"{config.draft_vocab_size} of the target's tokens, the most frequent of the training text (`d2t`, `t2d`)"
        if config.draft_vocab_size is not None
        else "the target's whole one, with the target's own output head (`lm_head` is not stored)"
    )
    lines = [
        f"# EAGLE3 head for {facts.target}",
        "",
        f"Drafts for {facts.target} from its features (EAGLE-3, Li et al., arXiv 2503.01840). Made by",
        "`ssd_lab.training.eagle3`; layout of SafeAILab and SpecForge. Of no use without that target.",
        "",
        "| | |",
        "| --- | --- |",
        f"| weights | {sum(p.numel() for p in head.parameters()):,} parameters, {weights:.2f} MB in bfloat16 |",
        f"| features | residual stream at the input of layers {', '.join(map(str, config.feature_layers))} |",
        f"| layer | {config.num_heads} heads, {config.num_kv_heads} kv heads of {config.head_dim}, "
        f"MLP {config.intermediate_size} |",
        f"| draft vocabulary | {vocabulary} |",
        f"| training text | {facts.documents:,} answers of the target itself, {facts.tokens:,} tokens with prompts |",
        f"| prompts | {facts.data} |",
        f"| training | {last['step']:.0f} steps, {last['tokens'] / 1e6:.1f} M tokens with padding, "
        f"{facts.seconds:.0f} s on {facts.hardware} |",
        f"| loss | soft labels over {training.unroll_steps} unrolled steps, each weighing {training.step_decay:g} of the "
        f"one before; total variation {training.acceptance_weight:g} from {training.acceptance_from:.0%} of the run on |",
        f"| optimiser | Muon {run.matrix_lr:g}, AdamW {run.embedding_lr:g}, cosine to 0, seed {run.seed} |",
        f"| licence | {facts.licence} |",
        "",
        "## Losses",
        "",
        "Cross-entropy with the target's distribution, and how often the likeliest token is the target's, in each step of "
        "the unrolled draft.",
        "",
        "| step | loss at the start | at the end | right at the start | at the end |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {step + 1} | {first[f'loss_{step}']:.3f} | {last[f'loss_{step}']:.3f} | {first[f'right_{step}']:.1%} "
        f"| {last[f'right_{step}']:.1%} |"
        for step in range(training.unroll_steps)
        if f"loss_{step}" in last
    ]
    if facts.measured:
        lines += _measured_table(facts)
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measured_table(facts: CardFacts) -> list[str]:
    compared = any(one.other_draft is not None for one in facts.measured.values())
    lines = [
        "",
        "## Tokens per round",
        "",
        f"Greedy, k = {facts.k}, on the target's greedy answers to prompts that were not trained on: accepted draft tokens "
        "plus one, over rounds that the end of an answer did not cut.",
        "",
        "| prompts | number | rounds | this head |" + (" the other draft |" if compared else "") + " agreement |",
        "| --- | --- | --- | --- |" + (" --- |" if compared else "") + " --- |",
    ]
    for name, one in facts.measured.items():
        other = "" if not compared else " - |" if one.other_draft is None else f" {one.other_draft:.2f} |"
        lines.append(f"| {name} | {one.prompts} | {one.rounds} | {one.head:.2f} |{other} {one.agreement:.1%} |")
    return lines
