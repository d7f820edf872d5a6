"""Train drafts to imitate the target: soft labels on the target's own answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ssd_lab.training.checkpoint import Checkpoint, fingerprint
from ssd_lab.training.config import ModelConfig, TrainConfig
from ssd_lab.training.corpus import Corpus, Microbatch, microbatches
from ssd_lab.training.model import Llama
from ssd_lab.training.optimiser import Optimiser, Schedule
from ssd_lab.training.pretrain import maybe_compiled, new_model, prefetched, write_log

logger = logging.getLogger(__name__)


@torch.no_grad()
def target_logits(target: Llama, batch: Microbatch, max_length: int) -> Tensor:
    """The target's logits [N, vocab]."""
    return target.logits(target.hidden(batch.tokens, batch.positions, batch.starts, max_length))


def distillation_loss(
    draft: Llama, batch: Microbatch, labels: Tensor, acceptance_weight: Tensor, max_length: int
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


def train_drafts(
    target: Llama,
    corpus: Corpus,
    geometries: dict[str, ModelConfig],
    config: TrainConfig,
    *,
    device: torch.device | str,
    acceptance_weight: float = 0.5,
    acceptance_from: float = 0.6,
    checkpoint_path: Path | None = None,
    checkpoint_steps: int = 500,
    log_path: Path | None = None,
    progress: bool = True,
    on_step: Callable[[int], None] = lambda step: None,
) -> dict[str, Llama]:
    """Train several drafts on the same batches, so that the target's forward pass is paid once.

    With a checkpoint path, an interrupted run goes on from its last checkpoint; where its length is given in steps, to
    the same bits as one that was not interrupted.
    """
    drafts = {name: new_model(geometry, seed=config.seed, device=device) for name, geometry in geometries.items()}
    optimisers = {name: Optimiser.of_llama(draft, config) for name, draft in drafts.items()}
    schedule = Schedule(config, corpus_tokens=corpus.num_tokens)
    labels_of = maybe_compiled(target_logits, config=config, device=device)
    loss_of = maybe_compiled(distillation_loss, config=config, device=device)
    records: list[dict[str, float]] = []
    checkpoint = None
    if checkpoint_path is not None:
        shapes = {name: asdict(geometry) for name, geometry in geometries.items()}
        key = fingerprint(drafts=shapes, training=asdict(config), weight=acceptance_weight, tokens=corpus.tokens)
        checkpoint = Checkpoint(checkpoint_path, key=key, every_steps=checkpoint_steps)
        saved = checkpoint.load(device)
        if saved is not None:
            for name, state in saved["drafts"].items():
                drafts[name].load_state_dict(state["weights"])
                optimisers[name].load_state_dict(state["optimiser"])
            schedule.resume(saved["step"], saved["elapsed_s"])
            records = saved["records"]
            logger.info("going on at step %d", schedule.step_number)
    batches = prefetched(
        microbatches(
            corpus,
            size_tokens=config.tokens_per_microbatch,
            prompt_weight=config.prompt_loss_weight,
            seed=config.seed,
            device=device,
            skip=schedule.step_number * config.microbatches_per_step,
        )
    )

    def save() -> None:
        if checkpoint is not None:
            states = {
                name: {"weights": draft.state_dict(), "optimiser": optimisers[name].state_dict()}
                for name, draft in drafts.items()
            }
            checkpoint.save(
                {
                    "drafts": states,
                    "step": schedule.step_number,
                    "elapsed_s": schedule.elapsed_s,
                    "records": records,
                }
            )

    with tqdm(total=1000, desc="drafts", disable=not progress, mininterval=10) as bar:
        while schedule.progress < 1:
            late = schedule.progress >= acceptance_from
            weight = torch.full((), acceptance_weight if late else 0.0, device=device)
            seen: dict[str, tuple[Tensor, Tensor]] = {}
            for _ in range(config.microbatches_per_step):
                batch = next(batches)
                labels = labels_of(target, batch, config.max_length_tokens)
                for name, draft in drafts.items():
                    loss, kl, agreement = loss_of(draft, batch, labels, weight, config.max_length_tokens)
                    (loss / config.microbatches_per_step).backward()
                    seen[name] = (kl, agreement.detach())
            factor = schedule.advance()
            for optimiser in optimisers.values():
                optimiser.step(factor)
            if schedule.step_number % 100 == 1 or schedule.progress >= 1:
                record = schedule.record()
                for name, (kl, agreement) in seen.items():
                    record[f"{name}_kl"], record[f"{name}_agreement"] = float(kl), float(agreement)
                records.append(record)
                bar.update(int(1000 * schedule.progress) - bar.n)
                bar.set_postfix({key: f"{value:.3f}" for key, value in record.items() if "_" in key})
                write_log(log_path, records)
            if checkpoint is not None and checkpoint.due(schedule.step_number):
                save()
            on_step(schedule.step_number)
    save()
    return drafts


def train_draft(
    target: Llama,
    corpus: Corpus,
    geometry: ModelConfig,
    config: TrainConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    checkpoint_path: Path | None = None,
    checkpoint_steps: int = 500,
    log_path: Path | None = None,
    progress: bool = True,
    on_step: Callable[[int], None] = lambda step: None,
) -> Llama:
    """Distil one draft from the target on a corpus of the target's own answers."""
    drafts = train_drafts(
        target,
        corpus,
        {"draft": geometry},
        config or TrainConfig(),
        device=device,
        checkpoint_path=checkpoint_path,
        checkpoint_steps=checkpoint_steps,
        log_path=log_path,
        progress=progress,
        on_step=on_step,
    )
    return drafts["draft"]
