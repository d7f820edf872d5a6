"""Train a model on a corpus: next-token prediction on packed conversations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_lab.models.config import ModelConfig
from ssd_lab.training.config import TrainConfig
from ssd_lab.training.corpus import Corpus, Microbatch, microbatches
from ssd_lab.training.loop import compiled, run_steps, write_log
from ssd_lab.training.model import TrainableLlama, new_model
from ssd_lab.training.optimiser import Optimiser, TrainingSchedule


def next_token_loss(model: TrainableLlama, batch: Microbatch, max_length: int) -> Tensor:
    """Weighted mean cross-entropy over the labelled positions."""
    hidden = model.hidden(batch.tokens, batch.positions, batch.starts, max_length)
    losses = F.cross_entropy(model.logits(hidden).float(), batch.labels, ignore_index=-100, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum()


def train_target(
    corpus: Corpus,
    geometry: ModelConfig,
    config: TrainConfig,
    *,
    device: torch.device | str,
    log_path: Path | None = None,
    held_out: Corpus | None = None,
    progress: bool = True,
) -> TrainableLlama:
    """Train from scratch until the budget is spent; the loss curve goes to `log_path` as JSON lines."""
    model = new_model(geometry, seed=config.seed, device=device)
    compiled_loss = compiled(next_token_loss, device)

    def loss_of(batch: Microbatch, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss = compiled_loss(model, batch, config.max_length_tokens)
        return loss, {"loss": loss.detach()}

    records = run_steps(
        "target",
        Optimiser.of_llama(model, config),
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
        log_path=log_path,
        progress=progress,
    )
    if held_out is not None and held_out.num_documents:
        records.append({"held_out_loss": held_out_loss(model, held_out, config, device=device)})
    write_log(log_path, records)
    return model


@torch.no_grad()
def held_out_loss(model: TrainableLlama, corpus: Corpus, config: TrainConfig, *, device: torch.device | str) -> float:
    """Mean loss of the answers' tokens of a corpus that was not trained on."""
    batches = microbatches(corpus, size_tokens=config.tokens_per_microbatch, prompt_weight=0.0, seed=0, device=device)
    count = max(1, corpus.num_tokens // config.tokens_per_microbatch)
    losses = [float(next_token_loss(model, next(batches), config.max_length_tokens)) for _ in range(count)]
    return sum(losses) / len(losses)
