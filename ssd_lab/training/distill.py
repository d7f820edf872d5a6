"""Train a draft to imitate the target: soft labels on the target's own answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ssd_lab.models.config import ModelConfig
from ssd_lab.training.config import TrainConfig
from ssd_lab.training.corpus import Corpus, Microbatch, microbatches
from ssd_lab.training.loop import compiled, run_steps
from ssd_lab.training.model import TrainableLlama, new_model
from ssd_lab.training.optimiser import Optimiser, TrainingSchedule
from ssd_lab.training.run_checkpoint import RunCheckpoint, fingerprint


@torch.no_grad()
def target_logits(target: TrainableLlama, batch: Microbatch, max_length: int) -> Tensor:
    """The target's logits [N, vocab]."""
    return target.logits(target.hidden(batch.tokens, batch.positions, batch.starts, max_length))


def distillation_loss(
    draft: TrainableLlama, batch: Microbatch, labels: Tensor, acceptance_weight: Tensor, max_length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, its forward-KL part, and the share of positions where draft and target agree on the likeliest token.

    labels [N, vocab] are the target's logits. The acceptance part is the total variation between the two
    distributions: one minus the probability that a drafted token is accepted.
    """
    hidden = draft.hidden(batch.tokens, batch.positions, batch.starts, max_length)
    draft_logits = draft.logits(hidden).float()
    draft_log_probs = draft_logits.log_softmax(-1)
    target_log_probs = labels.float().log_softmax(-1)
    target_probs = target_log_probs.exp()
    divergence = (target_probs * (target_log_probs - draft_log_probs)).sum(-1)  # [N]
    variation = 0.5 * (target_probs - draft_log_probs.exp()).abs().sum(-1)  # [N]
    share = batch.weights / batch.weights.sum()
    kl = (divergence * share).sum()
    loss = (1 - acceptance_weight) * kl + 2 * acceptance_weight * (variation * share).sum()
    agreement = ((draft_logits.argmax(-1) == labels.argmax(-1)) * share).sum()
    return loss, kl.detach(), agreement


def train_draft(
    target: TrainableLlama,
    corpus: Corpus,
    geometry: ModelConfig,
    config: TrainConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    acceptance_weight: float = 0.5,
    acceptance_from: float = 0.6,
    checkpoint_path: Path | None = None,
    checkpoint_steps: int = 500,
    log_path: Path | None = None,
    progress: bool = True,
    on_step: Callable[[int], None] = lambda step: None,
) -> TrainableLlama:
    """Distil a draft from the target on a corpus of the target's own answers.

    acceptance_weight: share of total variation in the loss, from the fraction `acceptance_from` of the run on. With a
    checkpoint path, an interrupted run goes on from its last checkpoint.
    """
    config = config or TrainConfig()
    draft = new_model(geometry, seed=config.seed, device=device)
    labels_of, distance_of = compiled(target_logits, device), compiled(distillation_loss, device)
    checkpoint = None
    if checkpoint_path is not None:
        key = fingerprint(
            draft=asdict(geometry), training=asdict(config), weight=acceptance_weight, tokens=corpus.tokens
        )
        checkpoint = RunCheckpoint(checkpoint_path, key=key, every_steps=checkpoint_steps)

    def loss_of(batch: Microbatch, begun: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        weight = torch.full((), acceptance_weight if begun >= acceptance_from else 0.0, device=device)
        labels = labels_of(target, batch, config.max_length_tokens)
        loss, divergence, agreement = distance_of(draft, batch, labels, weight, config.max_length_tokens)
        return loss, {"draft_kl": divergence, "draft_agreement": agreement.detach()}

    run_steps(
        "draft",
        Optimiser.of_llama(draft, config),
        TrainingSchedule(config, corpus_tokens=corpus.num_tokens),
        lambda skip: microbatches(
            corpus,
            size_tokens=config.tokens_per_microbatch,
            prompt_weight=config.prompt_loss_weight,
            seed=config.seed,
            device=device,
            skip=skip,
        ),
        loss_of,
        checkpoint=checkpoint,
        log_path=log_path,
        progress=progress,
        on_step=on_step,
    )
    return draft
