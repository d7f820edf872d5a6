"""`ssd-lab train eagle3` and `ssd-lab train draft`: from a target and prompts to a folder that can be drafted with."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ssd_lab.errors import ConfigError
from ssd_lab.models.names import BUNDLED
from ssd_lab.training.any_target import Target, answers_of, held_out, load_target, read_prompt_texts
from ssd_lab.training.card import CardFacts, Measured
from ssd_lab.training.config import GenerationConfig, ModelConfig, TrainConfig
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.distill import train_draft
from ssd_lab.training.draft_card import write_draft_card
from ssd_lab.training.eagle3 import Eagle3Training, train_eagle3, usable_feature_layers
from ssd_lab.training.eagle3_export import save_head, write_card
from ssd_lab.training.eagle3_measure import head_ranks
from ssd_lab.training.eagle3_model import HeadConfig
from ssd_lab.training.evaluate import draft_ranks, guess_quality
from ssd_lab.training.family import resolve_device
from ssd_lab.training.model import save_hf
from ssd_lab.training.own_answers import greedy_answers

logger = logging.getLogger(__name__)

_LOGITS_IN_A_BATCH = 2**27  # tokens times vocabulary: bounds the memory of a step
_CPU_TOKENS = 1024
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_OWN_LICENCE = "that of the target, whose answers it was trained on, and of the prompts: check both"


@dataclass(frozen=True)
class Job:
    """What both kinds of training need.

    answers_s: seconds for the target's answers (None: until all prompts are answered). budget_s: seconds of training;
    steps replaces it, for a run that repeats exactly. Everything is made in `output`, an interrupted run goes on there.
    """

    target: str
    prompts: Path
    output: Path
    test_prompts: Path | None = None
    answers_s: float | None = None
    budget_s: float = 600.0
    steps: int | None = None
    max_new_tokens: int = 224
    max_length_tokens: int = 384
    passes: int = 4
    k: int = 5
    seed: int = 0
    device: str = "auto"
    progress: bool = True

    @property
    def work(self) -> Path:
        """Where answers, checkpoints and logs are."""
        return self.output / "work"


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
            hidden_size=hidden,
            num_layers=self.num_layers or max(1, target.num_layers // 2),
            num_heads=heads,
            num_kv_heads=kv_heads,
            intermediate_size=self.intermediate_size or max(16, round(hidden * 2.1875 / 16) * 16),
            vocab_size=target.vocab_size,
            head_dim=target.head_dim,
            max_positions=target.max_positions,
        )


@dataclass(frozen=True)
class _Ready:
    """A job with its target, its training text and the answers that it is measured on."""

    target: Target
    device: str
    corpus: Corpus
    prompts: list[list[int]]
    answers: list[list[int]]


def train_eagle3_head(
    job: Job,
    *,
    draft_vocab_size: int | None = None,
    feature_layers: tuple[int, ...] | None = None,
    unroll_steps: int = 6,
    mlp_size: int | None = None,
    checkpoint_steps: int = 200,
) -> dict[str, float]:
    """An EAGLE3 head for any target, in `job.output`; returns what was measured."""
    ready = _prepare(job)
    shape = ready.target.model.config
    config = HeadConfig(
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        intermediate_size=mlp_size or shape.intermediate_size,
        feature_layers=feature_layers or usable_feature_layers(shape.num_layers),
        head_dim=shape.head_dim,
        draft_vocab_size=draft_vocab_size,
    )
    training = Eagle3Training(unroll_steps=unroll_steps, checkpoint_steps=checkpoint_steps)
    training = replace(training, run=_run(job, training.run, ready))
    began = time.monotonic()
    head, draft_ids, records = train_eagle3(
        ready.target.model,
        ready.corpus,
        config,
        training,
        device=ready.device,
        checkpoint_path=job.work / "head.pt",
        log_path=job.work / "log.jsonl",
        progress=job.progress,
    )
    seconds = time.monotonic() - began
    save_head(head, shape, draft_ids, job.output, bos_id=ready.target.bos_id, eos_id=list(ready.target.eos_ids))
    ranks = head_ranks(head, ready.target.model, ready.prompts, ready.answers, k=job.k, draft_ids=draft_ids)
    quality = guess_quality(ranks, k=job.k, fan_out=3)
    name = job.test_prompts.name if job.test_prompts else "held out of the prompts"
    measured = {name: Measured(len(ready.prompts), quality.rounds, quality.tokens_per_round, quality.agreement)}
    facts = _facts(job, ready, measured, seconds)
    write_card(job.output, head, training, facts, records)
    return {"tokens_per_round": quality.tokens_per_round, "agreement": quality.agreement, "k": job.k}


def train_small_draft(job: Job, size: DraftSize | None = None, *, checkpoint_steps: int = 200) -> dict[str, float]:
    """A small draft distilled from any target, in `job.output`; returns what was measured."""
    ready = _prepare(job)
    if ready.target.folder is None:
        raise ConfigError(f"{job.target}: a draft needs the target's tokenizer files, so give a folder or a hub id")
    shape = (size or DraftSize()).geometry(ready.target.model.config)
    run = TrainConfig(
        embedding_lr=4e-3, weight_decay=0.01, prompt_loss_weight=0.05, microbatches_per_step=1, max_epochs=8.0,
        tokens_per_microbatch=65_536,
    )  # fmt: skip
    run = _run(job, run, ready)
    began = time.monotonic()
    draft = train_draft(
        ready.target.model,
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
    save_hf(draft, job.output, bos_id=ready.target.bos_id, eos_id=list(ready.target.eos_ids))
    for file in _TOKENIZER_FILES:
        if (ready.target.folder / file).exists():
            shutil.copy(ready.target.folder / file, job.output / file)
    quality = guess_quality(draft_ranks(draft, ready.prompts, ready.answers), k=job.k, fan_out=3)
    name = job.test_prompts.name if job.test_prompts else "held out of the prompts"
    measured = {name: Measured(len(ready.prompts), quality.rounds, quality.tokens_per_round, quality.agreement)}
    write_draft_card(job.output, shape, run, _facts(job, ready, measured, seconds), job.work / "log.jsonl")
    return {"tokens_per_round": quality.tokens_per_round, "agreement": quality.agreement, "k": job.k}


def _prepare(job: Job) -> _Ready:
    device = resolve_device(job.device)
    on_gpu = device.startswith("cuda")
    target = load_target(job.target, device=device, dtype=torch.bfloat16 if on_gpu else torch.float32)
    texts = list(dict.fromkeys(read_prompt_texts(job.prompts)))
    if job.test_prompts is None:
        texts, tests = held_out(texts)
    else:
        tests = list(dict.fromkeys(read_prompt_texts(job.test_prompts)))
        unseen = set(tests)
        texts = [text for text in texts if text not in unseen]
    length = min(job.max_length_tokens, target.model.config.max_positions)
    generation = GenerationConfig(
        rows=6144,
        max_length_tokens=length,
        max_prompt_tokens=length * 2 // 3,
        max_new_tokens=min(job.max_new_tokens, length // 2),
        min_p=0.0,
        seed=job.seed,
    )
    corpus = answers_of(
        target,
        texts,
        generation,
        passes=job.passes,
        budget_s=job.answers_s,
        folder=job.work,
        device=device,
        progress=job.progress,
    )
    encoded = [tokens for tokens in map(target.encode, tests) if 2 <= len(tokens) <= generation.max_prompt_tokens]
    if not encoded:
        raise ConfigError(
            f"no test prompt has 2 to {generation.max_prompt_tokens} tokens: there is nothing to measure on"
        )
    greedy = replace(generation, rows=min(len(encoded), 256), max_new_tokens=min(128, generation.max_new_tokens))
    prompts, answers = greedy_answers(target.model, encoded, greedy, eos_ids=target.eos_ids)
    return _Ready(target, device, corpus, prompts, answers)


def _run(job: Job, run: TrainConfig, ready: _Ready) -> TrainConfig:
    vocab_size = ready.target.model.config.vocab_size
    size = min(run.tokens_per_microbatch, max(512, _LOGITS_IN_A_BATCH // vocab_size))
    size = size if ready.device.startswith("cuda") else min(size, _CPU_TOKENS)
    return replace(
        run,
        tokens_per_microbatch=max(size, job.max_length_tokens),
        max_length_tokens=min(job.max_length_tokens, ready.target.model.config.max_positions),
        budget_s=job.budget_s,
        max_steps=job.steps,
        seed=job.seed,
    )


def _facts(job: Job, ready: _Ready, measured: dict[str, Measured], seconds: float) -> CardFacts:
    return CardFacts(
        target="the bundled target of ssd_lab" if job.target == BUNDLED else Path(job.target).name,
        data=f"`{job.prompts.name}`",
        documents=ready.corpus.num_documents,
        tokens=ready.corpus.num_tokens,
        k=job.k,
        measured=measured,
        hardware=torch.cuda.get_device_name() if ready.device.startswith("cuda") else "a CPU",
        licence=_OWN_LICENCE,
        seconds=seconds,
    )
