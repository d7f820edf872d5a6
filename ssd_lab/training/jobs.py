"""`ssd-lab train eagle3` and `ssd-lab train draft`: from a target and prompts to a folder that can be drafted with."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ssd_lab.errors import ConfigError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.checkpoint import locate
from ssd_lab.models.names import BUNDLED
from ssd_lab.training.card import CardFacts, Measured, write_draft_card
from ssd_lab.training.config import TrainConfig
from ssd_lab.training.distill import train_draft
from ssd_lab.training.eagle3 import Eagle3Training, train_eagle3, usable_feature_layers
from ssd_lab.training.eagle3_export import save_head, write_card
from ssd_lab.training.eagle3_measure import head_ranks
from ssd_lab.training.eagle3_model import HeadConfig
from ssd_lab.training.evaluate import GuessQuality, draft_ranks, guess_quality
from ssd_lab.training.hf_files import save_hf
from ssd_lab.training.preparing import TrainingJob, TrainingMaterial, prepare

_LOGITS_IN_A_BATCH = 2**27  # tokens times vocabulary: bounds the memory of a step
_CPU_TOKENS = 1024
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_OWN_LICENCE = "that of the target, whose answers it was trained on, and of the prompts: check both"


@dataclass(frozen=True)
class DraftSize:
    """What of a draft's geometry is asked for; the rest follows: half as wide and half as deep as the target."""

    hidden_size: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    num_kv_heads: int | None = None
    intermediate_size: int | None = None

    def geometry(self, target: ModelConfig) -> ModelConfig:
        """The draft of a target. Raises ConfigError for heads that do not divide."""
        heads = self.num_heads or max(1, (self.hidden_size or target.hidden_size // 2) // target.head_dim)
        hidden = self.hidden_size or heads * target.head_dim
        kv_heads = self.num_kv_heads or next(n for n in range(max(1, heads // 4), heads + 1) if heads % n == 0)
        if heads % kv_heads:
            raise ConfigError(f"{heads} heads cannot share {kv_heads} kv heads: the one must divide the other")
        return ModelConfig(
            model_type="llama",
            hidden_size=hidden,
            num_layers=self.num_layers or max(1, target.num_layers // 2),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=target.head_dim,
            mlp_size=self.intermediate_size or max(16, round(hidden * 2.1875 / 16) * 16),
            vocab_size=target.vocab_size,
            max_positions=target.max_positions,
            tie_embeddings=True,
            eos_token_ids=target.eos_token_ids,
            bos_token_id=target.bos_token_id,
        )


def train_eagle3_head(
    job: TrainingJob,
    *,
    draft_vocab_size: int | None = None,
    feature_layers: tuple[int, ...] | None = None,
    unroll_steps: int = 6,
    mlp_size: int | None = None,
    checkpoint_steps: int = 200,
) -> dict[str, float]:
    """An EAGLE3 head for any target, in `job.output`; returns what was measured."""
    ready = prepare(job)
    shape = ready.target.config
    config = HeadConfig(
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        intermediate_size=mlp_size or shape.mlp_size,
        feature_layers=feature_layers or usable_feature_layers(shape.num_layers),
        head_dim=shape.head_dim,
        draft_vocab_size=draft_vocab_size,
    )
    training = Eagle3Training(unroll_steps=unroll_steps, checkpoint_steps=checkpoint_steps)
    training = replace(training, run=_run(job, training.run, ready))
    began = time.monotonic()
    head, draft_ids, records = train_eagle3(
        ready.target,
        ready.corpus,
        config,
        training,
        device=ready.device,
        checkpoint_path=job.work / "head.pt",
        log_path=job.work / "log.jsonl",
        progress=job.progress,
    )
    seconds = time.monotonic() - began
    save_head(head, shape, draft_ids, job.output)
    ranks = head_ranks(head, ready.target, ready.prompts, ready.answers, k=job.k, draft_ids=draft_ids)
    quality = guess_quality(ranks, k=job.k, fan_out=3)
    write_card(job.output, head, training, _facts(job, ready, quality, seconds), records)
    return _measured(job, quality)


def train_small_draft(
    job: TrainingJob, size: DraftSize | None = None, *, checkpoint_steps: int = 200
) -> dict[str, float]:
    """A small draft distilled from any target, in `job.output`; returns what was measured."""
    folder = locate(job.source)
    if folder.is_file():
        raise ConfigError(f"{job.target}: a draft needs the target's tokenizer files, so give a folder or a hub id")
    ready = prepare(job)
    shape = (size or DraftSize()).geometry(ready.target.config)
    run = TrainConfig(
        embedding_lr=4e-3, weight_decay=0.01, prompt_loss_weight=0.05, microbatches_per_step=1, max_epochs=8.0,
        tokens_per_microbatch=65_536,
    )  # fmt: skip
    run = _run(job, run, ready)
    began = time.monotonic()
    draft = train_draft(
        ready.target,
        ready.corpus,
        shape,
        run,
        device=ready.device,
        checkpoint_path=job.work / "draft.pt",
        checkpoint_steps=checkpoint_steps,
        log_path=job.work / "log.jsonl",
        progress=job.progress,
    )
    seconds = time.monotonic() - began
    save_hf(draft, job.output)
    for file in _TOKENIZER_FILES:
        if (folder / file).exists():
            shutil.copy(folder / file, job.output / file)
    quality = guess_quality(draft_ranks(draft, ready.prompts, ready.answers), k=job.k, fan_out=3)
    write_draft_card(job.output, shape, run, _facts(job, ready, quality, seconds), job.work / "log.jsonl")
    return _measured(job, quality)


def _run(job: TrainingJob, run: TrainConfig, ready: TrainingMaterial) -> TrainConfig:
    """The settings of a run, its batches as large as the device and the vocabulary allow."""
    vocab_size = ready.target.config.vocab_size
    size = min(run.tokens_per_microbatch, max(512, _LOGITS_IN_A_BATCH // vocab_size))
    size = size if ready.device.startswith("cuda") else min(size, _CPU_TOKENS)
    return replace(
        run,
        tokens_per_microbatch=max(size, job.max_length_tokens),
        max_length_tokens=min(job.max_length_tokens, ready.target.config.max_positions),
        budget_s=job.budget_s,
        max_steps=job.steps,
        seed=job.seed,
    )


def _facts(job: TrainingJob, ready: TrainingMaterial, quality: GuessQuality, seconds: float) -> CardFacts:
    name = job.test_prompts.name if job.test_prompts else "held out of the prompts"
    measured = Measured(len(ready.prompts), quality.rounds, quality.tokens_per_round, quality.agreement)
    return CardFacts(
        target="the bundled target of ssd_lab" if job.target == BUNDLED else Path(job.target).name,
        data=f"`{job.prompts.name}`",
        documents=ready.corpus.num_documents,
        tokens=ready.corpus.num_tokens,
        k=job.k,
        measured={name: measured},
        hardware=torch.cuda.get_device_name() if ready.device.startswith("cuda") else "a CPU",
        licence=_OWN_LICENCE,
        seconds=seconds,
    )


def _measured(job: TrainingJob, quality: GuessQuality) -> dict[str, float]:
    return {"tokens_per_round": quality.tokens_per_round, "agreement": quality.agreement, "k": job.k}
