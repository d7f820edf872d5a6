"""What is made before a draft is trained: the target's answers, to train on and to measure by, and the target."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ssd_lab import demo
from ssd_lab.assembly.build import resolve_device
from ssd_lab.common.prompt_file import read_prompt_file
from ssd_lab.errors import ConfigError, ModelLoadError, PromptError
from ssd_lab.llm import LLM
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.checkpoint import read_shape
from ssd_lab.models.names import BUNDLED
from ssd_lab.training.config import AnswerSettings
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.hf_files import load_hf
from ssd_lab.training.kept_answers import KeptAnswers, of_others
from ssd_lab.training.model import TrainableLlama
from ssd_lab.training.own_answers import answering, greedy_answers, own_answers
from ssd_lab.training.run_checkpoint import fingerprint

logger = logging.getLogger(__name__)

_HELD_OUT_SHARE, _HELD_OUT_MOST = 20, 100  # every twentieth prompt, at most so many, is kept to measure on
_MEASURED_TOKENS = 128  # of each answer that is measured on


@dataclass(frozen=True)
class TrainingJob:
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

    @property
    def source(self) -> str:
        """Where the target is."""
        return str(demo.TARGET) if self.target == BUNDLED else self.target


@dataclass(frozen=True)
class TrainingMaterial:
    """A job with its target, its training text, and the prompts and greedy answers that it is measured on."""

    target: TrainableLlama
    device: str
    corpus: Corpus
    prompts: list[list[int]]
    answers: list[list[int]]


def prepare(job: TrainingJob) -> TrainingMaterial:
    """Everything that is made before training; the engine is gone again when this returns."""
    device, source = str(resolve_device(job.device)), job.source
    texts = _texts_of(job.prompts)
    if job.test_prompts is None:
        texts, tests = held_out(texts)
    else:
        tests = _texts_of(job.test_prompts)
        unseen = set(tests)
        texts = [text for text in texts if text not in unseen]
    settings = _settings(job, read_shape(source))
    with answering(source, settings, device=device) as llm:
        tokenizer = llm.target.tokenizer
        if tokenizer is None:
            raise ModelLoadError(f"{job.target} has no tokenizer.json, without which prompts cannot be read")
        eos_ids = tokenizer.eos_token_ids or llm.target.config.eos_token_ids
        if not eos_ids:
            raise ModelLoadError(f"{job.target} names no end token: its answers would never end")
        corpus = _corpus(job, llm, texts, settings)
        prompts = [tokens for tokens in map(llm.encode, tests) if 2 <= len(tokens) <= settings.max_prompt_tokens]
        if not prompts:
            raise ConfigError(
                f"no test prompt has 2 to {settings.max_prompt_tokens} tokens: there is nothing to measure on"
            )
        short = replace(settings, max_new_tokens=min(_MEASURED_TOKENS, settings.max_new_tokens))
        answers = greedy_answers(llm, prompts, short)
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    target = load_hf(source, device=device, dtype=torch.bfloat16 if device.startswith("cuda") else torch.float32)
    target.config = replace(target.config, eos_token_ids=tuple(eos_ids))
    return TrainingMaterial(target, device, corpus, prompts, answers)


def _settings(job: TrainingJob, target: ModelConfig) -> AnswerSettings:
    length = min(job.max_length_tokens, target.max_positions)
    return AnswerSettings(
        max_length_tokens=length,
        max_prompt_tokens=length * 2 // 3,
        max_new_tokens=min(job.max_new_tokens, length // 2),
        seed=job.seed,
    )


def _corpus(job: TrainingJob, llm: LLM, texts: list[str], settings: AnswerSettings) -> Corpus:
    """The target's own answers, kept in `job.work`. Raises ConfigError if those there are others."""
    path, note = job.work / "answers.npz", job.work / "answers.json"
    shape = {**asdict(llm.target.config), "rope_scaling": dict(llm.target.config.rope_scaling or {})}
    key = fingerprint(
        target=job.source,
        shape=shape,
        prompts=texts,
        passes=job.passes,
        settings=asdict(replace(settings, max_batch=1)),
    )
    if path.exists() and note.exists():
        if json.loads(note.read_text(encoding="utf-8"))["key"] != key:
            raise of_others(path)
        logger.info("answers: those in %s", path)
        return Corpus.load(path)
    prompts = [llm.encode(text) for text in texts]
    kept = KeptAnswers(job.work / "answers_so_far.jsonl", key)
    corpus = own_answers(
        llm, prompts, settings, passes=job.passes, budget_s=job.answers_s, progress=job.progress, kept=kept
    )
    job.work.mkdir(parents=True, exist_ok=True)
    corpus.save(path)
    note.write_text(json.dumps({"key": key, "target": job.target}) + "\n", encoding="utf-8")
    kept.remove()
    return corpus


def _texts_of(path: Path) -> list[str]:
    """The different texts of a file of prompts. Raises PromptError."""
    prompts = read_prompt_file(path)
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise PromptError(f"{path} holds token ids or chats: training takes prompts as texts")
    return list(dict.fromkeys(prompts))


def held_out(prompts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Prompts to train on and others to measure on, always the same split of the same prompts."""
    if len(prompts) < 2:
        raise PromptError("one prompt is not enough: some are trained on, others measured on")
    every = max(_HELD_OUT_SHARE, -(-len(prompts) // _HELD_OUT_MOST)) if len(prompts) >= _HELD_OUT_SHARE else 2
    tests = list(prompts[::every])
    known = set(tests)
    return [prompt for prompt in prompts if prompt not in known], tests
