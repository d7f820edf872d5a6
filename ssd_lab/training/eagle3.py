"""Train an EAGLE3 head for any target, by training-time test on the target's soft labels.

EAGLE-3 (Li et al., arXiv 2503.01840); the decay of the later steps' losses is that of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd_lab.errors import ConfigError
from ssd_lab.models.config import ModelConfig
from ssd_lab.training.config import TrainConfig
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.eagle3_model import HeadConfig, TrainableHead
from ssd_lab.training.loop import run_steps
from ssd_lab.training.model import TrainableLlama
from ssd_lab.training.optimiser import Optimiser, TrainingSchedule
from ssd_lab.training.padded import PaddedBatch, batch_plan, padded_batch
from ssd_lab.training.run_checkpoint import RunCheckpoint, fingerprint


@dataclass(frozen=True)
class Eagle3Training:
    """How a head is trained.

    unroll_steps: draft steps in training-time test. step_decay: each step's loss counts so much of the one before.
    acceptance_weight: share of total variation (one minus the probability that a draft token is kept) in the loss,
    from the fraction `acceptance_from` of the run on.
    """

    run: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            tokens_per_microbatch=32_768,
            microbatches_per_step=1,
            max_length_tokens=384,
            matrix_lr=0.03,
            embedding_lr=2e-3,
            weight_decay=0.01,
            prompt_loss_weight=0.05,
            max_epochs=8.0,
        )
    )
    unroll_steps: int = 6
    step_decay: float = 0.8
    acceptance_weight: float = 0.5
    acceptance_from: float = 0.6
    checkpoint_steps: int = 500

    def __post_init__(self) -> None:
        if not 1 <= self.unroll_steps <= 16:
            raise ConfigError(f"unroll_steps is {self.unroll_steps}: 1 to 16 are allowed, 3 to 7 are usual")
        if not 0 < self.step_decay <= 1:
            raise ConfigError(f"step_decay is {self.step_decay}: more than 0 and at most 1 is allowed")


def usable_feature_layers(num_layers: int) -> tuple[int, ...]:
    """The published layers where they are three different ones, else three spread over the target, its end included."""
    published = (2, num_layers // 2, num_layers - 3)
    if len(set(published)) == 3 and min(published) >= 0:
        return published
    return (num_layers // 3, 2 * num_layers // 3, num_layers)


def frequent_tokens(corpus: Corpus, size: int, vocab_size: int) -> Tensor:
    """The ids, in order, of the `size` tokens that the answers of a corpus hold most often; ties go to the lower id."""
    if not 1 <= size <= vocab_size:
        raise ConfigError(f"a draft vocabulary of {size} tokens: the target has {vocab_size}")
    positions = np.arange(corpus.num_tokens) - np.repeat(corpus.starts[:-1], np.diff(corpus.starts))
    in_answer = positions >= np.repeat(corpus.prompt_lengths, np.diff(corpus.starts))
    counts = np.bincount(corpus.tokens[in_answer], minlength=vocab_size)
    return torch.from_numpy(np.sort(np.argsort(-counts, kind="stable")[:size]))


@torch.no_grad()
def target_reading(target: TrainableLlama, batch: PaddedBatch, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The target's features side by side `[batch, length, layers * hidden]`, and logits `[batch, length, vocab]`."""
    rows, length = batch.tokens.shape
    device = batch.tokens.device
    features: dict[int, Tensor] = {layer: torch.empty(0) for layer in layers}
    hidden = target.hidden(
        batch.tokens.flatten(),
        torch.arange(length, device=device).repeat(rows),
        torch.arange(rows + 1, dtype=torch.int32, device=device) * length,
        length,
        features=features,
    )
    stacked = torch.cat([features[layer].view(rows, length, -1) for layer in layers], -1)
    return stacked, target.logits(hidden).view(rows, length, -1)


def unrolled_loss(
    head: TrainableHead,
    target: TrainableLlama,
    batch: PaddedBatch,
    draft_ids: Tensor | None,
    config: Eagle3Training,
    acceptance_weight: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss; the cross-entropy of each step `[steps]`; each step's share of rows whose likeliest token is right.

    Labels are the target's probabilities of the draft vocabulary, not made to sum to 1: where the target is likely to
    say what the draft cannot, there is that much less to learn.
    """
    features, target_logits = target_reading(target, batch, head.config.feature_layers)
    wanted = target_logits.argmax(-1)
    labels = target_logits.float().softmax(-1)
    labels = labels if draft_ids is None else labels[..., draft_ids]
    total = torch.zeros((), device=batch.tokens.device)
    entropies, agreements = [], []
    embedding, output_weight = target.model.embed_tokens.weight.detach(), target.output_weight.detach()
    steps = head.unrolled(features, batch.tokens, embedding, config.unroll_steps)
    for step, normed in enumerate(steps):
        later = step + 1  # row i of this step is judged by the target's row i + 1 + step
        if later >= batch.tokens.shape[1]:
            break
        log_probs = head.logits(normed[:, :-later], output_weight).float().log_softmax(-1)
        probs, weights = labels[:, later:], batch.weights[:, later:]
        share = weights / weights.sum().clamp(min=1e-6)
        entropy = (-(probs * log_probs).sum(-1) * share).sum()
        loss = entropy
        if acceptance_weight > 0:
            variation = 0.5 * (probs - log_probs.exp()).abs().sum(-1)
            loss = (1 - acceptance_weight) * entropy + 2 * acceptance_weight * (variation * share).sum()
        total = total + config.step_decay**step * loss
        guessed = log_probs.argmax(-1)
        guessed = guessed if draft_ids is None else draft_ids[guessed]
        entropies.append(entropy.detach())
        agreements.append(((guessed == wanted[:, later:]) * share).sum())
    return total, torch.stack(entropies), torch.stack(agreements)


def train_eagle3(
    target: TrainableLlama,
    corpus: Corpus,
    config: HeadConfig,
    training: Eagle3Training,
    *,
    device: torch.device | str,
    checkpoint_path: Path | None = None,
    log_path: Path | None = None,
    progress: bool = True,
    on_step: Callable[[int], None] = lambda step: None,
) -> tuple[TrainableHead, Tensor | None, list[dict[str, float]]]:
    """A trained head, the target ids of its draft vocabulary (None: the whole one), and the records of the run.

    The corpus is the target's own answers. With a checkpoint path, a run that was interrupted goes on from its last
    checkpoint; where the length of the run is given in steps, to the same bits as one that was not.
    """
    run = training.run
    vocab_size = target.config.vocab_size
    if any(not 0 <= layer <= target.config.num_layers for layer in config.feature_layers):
        raise ConfigError(
            f"feature layers {list(config.feature_layers)}: the target has 0..{target.config.num_layers} "
            "(the last one is the input of its final norm)"
        )
    draft_ids = None
    if config.draft_vocab_size is not None:
        draft_ids = frequent_tokens(corpus, config.draft_vocab_size, vocab_size).to(device)
    head = TrainableHead(config, target.config)
    head.initialise(target, draft_ids, torch.Generator().manual_seed(run.seed))
    head = head.to(device)
    if str(device).startswith("cuda"):
        head.compute_dtype = torch.bfloat16
    checkpoint = None
    if checkpoint_path is not None:
        key = fingerprint(
            head=asdict(config), training=asdict(training), target=_shape(target.config), tokens=corpus.tokens
        )
        checkpoint = RunCheckpoint(checkpoint_path, key=key, every_steps=training.checkpoint_steps)

    def loss_of(batch: PaddedBatch, begun: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        weight = training.acceptance_weight if begun >= training.acceptance_from else 0.0
        loss, entropies, right = unrolled_loss(head, target, batch, draft_ids, training, weight)
        of_steps = {"loss": entropies, "right": right}
        return loss, {f"{name}_{i}": value for name, values in of_steps.items() for i, value in enumerate(values)}

    records = run_steps(
        "eagle3",
        Optimiser(head, head.matrices(), run),
        TrainingSchedule(run, corpus_tokens=corpus.num_tokens),
        lambda skip: _batches(corpus, run, skip, device),
        loss_of,
        checkpoint=checkpoint,
        log_path=log_path,
        progress=progress,
        on_step=on_step,
    )
    return head, draft_ids, records


def _batches(corpus: Corpus, run: TrainConfig, skip: int, device: torch.device | str) -> Iterator[PaddedBatch]:
    plan = batch_plan(corpus, size_tokens=run.tokens_per_microbatch, max_length=run.max_length_tokens, seed=run.seed)
    for documents in islice(plan, skip, None):
        yield padded_batch(
            corpus,
            documents,
            max_length=run.max_length_tokens,
            prompt_weight=run.prompt_loss_weight,
            device=device,
        )


def _shape(config: ModelConfig) -> dict[str, Any]:
    return {**asdict(config), "rope_scaling": dict(config.rope_scaling or {})}
