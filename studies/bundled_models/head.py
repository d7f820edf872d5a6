"""Train the bundled target's EAGLE3 head: `python -m studies.bundled_models.head --prompts FILE --out DIR`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ssd_lab import demo
from ssd_lab.assembly.build import resolve_device
from ssd_lab.llm import LLM
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.checkpoint import read_shape
from ssd_lab.training.card import CardFacts, Measured
from ssd_lab.training.config import AnswerSettings
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.eagle3 import Eagle3Training, train_eagle3, usable_feature_layers
from ssd_lab.training.eagle3_export import WEIGHTS, save_head, write_card
from ssd_lab.training.eagle3_measure import head_ranks
from ssd_lab.training.eagle3_model import HeadConfig, TrainableHead
from ssd_lab.training.evaluate import GuessQuality, draft_ranks, guess_quality
from ssd_lab.training.hf_files import load_hf
from ssd_lab.training.model import TrainableLlama
from ssd_lab.training.own_answers import answering, greedy_answers, own_answers
from studies.bundled_models.head_check import largest_difference
from studies.bundled_models.prompts import file_prompts, own_prompts, without_overlap

logger = logging.getLogger(__name__)

LARGEST_BYTES = 7_950_000  # of the weights; the file has a short header besides
LARGEST_DIFFERENCE = 0.01  # between the two forwards, in log-probability
NO_TESTS = {"train_prompts", "c4"}  # the one is trained on, the other has texts and no prompts
DATA = "the generator of `studies/bundled_models/` and the commercially usable parts of a file of real ones"
LICENCE = "Apache-2.0, as the bundled models; prompts: see docs/models.md (none of the non-commercial parts)"


@dataclass(frozen=True)
class HeadRun:
    """One run. budget_s: seconds for everything; answers_s: of these, for the target's answers."""

    prompts: Path
    tests: Path | None
    out: Path
    work: Path
    budget_s: float
    answers_s: float
    device: str
    head: HeadConfig
    training: Eagle3Training
    num_own_prompts: int
    passes: int
    k: int
    test_prompts: int
    progress: bool


def fitting_mlp(target: ModelConfig, draft_vocab_size: int | None, num_features: int = 3) -> int:
    """The widest MLP (a multiple of 32) with which the head's weights stay within LARGEST_BYTES."""
    shape = HeadConfig(
        target.num_heads, target.num_kv_heads, 32, tuple(range(num_features)), target.head_dim, draft_vocab_size
    )
    others = sum(p.numel() for p in TrainableHead(shape, target).parameters()) - 3 * 32 * target.hidden_size
    names = 0 if draft_vocab_size is None else 8 * draft_vocab_size + target.vocab_size  # d2t and t2d
    width = (LARGEST_BYTES - names - 2 * others) // (2 * 3 * target.hidden_size) // 32 * 32
    if width < 32:
        raise ValueError(f"a draft vocabulary of {draft_vocab_size} leaves no room for the layer in {LARGEST_BYTES} B")
    return width


def read_tests(folder: Path | None) -> dict[str, list[str]]:
    """Prompts of each test file of a folder."""
    if folder is None:
        return {}
    files = sorted(path for path in folder.glob("*.jsonl") if path.stem not in NO_TESTS)
    return {
        path.stem: [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()]
        for path in files
    }


def training_corpus(plan: HeadRun, llm: LLM, settings: AnswerSettings, tests: dict[str, list[str]]) -> Corpus:
    """The target's answers, kept in the work folder, so that a second run need not make them again."""
    path = plan.work / "answers.npz"
    if path.exists():
        logger.info("answers: those in %s", path)
        return Corpus.load(path)
    test_texts = [text for texts in tests.values() for text in texts]
    own = without_overlap(own_prompts(plan.num_own_prompts, seed=plan.training.run.seed + 31), test_texts)
    real = without_overlap(file_prompts(plan.prompts), test_texts)
    prompts = [*own, *real * 3]  # real prompts are few: they come more often
    order = np.random.default_rng(plan.training.run.seed).permutation(len(prompts))
    logger.info("prompts: %d of our own, %d real ones", len(own), len(real))
    corpus = own_answers(
        llm,
        [llm.encode(prompts[i].text) for i in order],
        settings,
        passes=plan.passes,
        budget_s=min(plan.answers_s, 0.4 * plan.budget_s),
        progress=plan.progress,
    )
    plan.work.mkdir(parents=True, exist_ok=True)
    corpus.save(path)
    return corpus


@dataclass(frozen=True)
class AnsweredPrompts:
    """Prompts of a file, and the target's greedy answers to them."""

    name: str
    prompts: list[list[int]]
    answers: list[list[int]]


def answered_tests(
    plan: HeadRun, llm: LLM, settings: AnswerSettings, tests: dict[str, list[str]]
) -> list[AnsweredPrompts]:
    """Of each test file at most so many prompts, drawn at random, that are short enough."""
    sets = []
    for name, texts in tests.items():
        picked = np.random.default_rng(0).permutation(len(texts))
        tokens = [llm.encode(texts[i]) for i in picked]
        prompts = [line for line in tokens if len(line) <= settings.max_prompt_tokens][: plan.test_prompts]
        if prompts:
            answers = greedy_answers(llm, prompts, replace(settings, max_new_tokens=128))
            sets.append(AnsweredPrompts(name, prompts, answers))
    return sets


def measure(
    plan: HeadRun,
    target: TrainableLlama,
    head: TrainableHead,
    draft_ids: torch.Tensor | None,
    tests: Sequence[AnsweredPrompts],
) -> dict[str, Measured]:
    """Tokens per round of the head and of the bundled draft on each test set, and on all together."""
    draft = load_hf(demo.DRAFT, device=plan.device, dtype=target.model.embed_tokens.weight.dtype)
    measured: dict[str, Measured] = {}
    qualities: list[tuple[GuessQuality, GuessQuality]] = []
    for test in tests:
        ranks = head_ranks(head, target, test.prompts, test.answers, k=plan.k, draft_ids=draft_ids)
        ours = guess_quality(ranks, k=plan.k, fan_out=3)
        others = guess_quality(draft_ranks(draft, test.prompts, test.answers), k=plan.k, fan_out=3)
        qualities.append((ours, others))
        measured[test.name] = _compared(len(test.prompts), ours, others)
        logger.info(
            "%s: head %.2f, draft %.2f tokens per round", test.name, ours.tokens_per_round, others.tokens_per_round
        )
    if qualities:
        ours, others = (_together([pair[side] for pair in qualities]) for side in (0, 1))
        number = sum(len(test.prompts) for test in tests)
        measured["all, weighted by rounds"] = _compared(number, ours, others)
    return measured


def _compared(prompts: int, ours: GuessQuality, others: GuessQuality) -> Measured:
    return Measured(prompts, ours.rounds, ours.tokens_per_round, ours.agreement, others.tokens_per_round)


def _together(parts: Sequence[GuessQuality]) -> GuessQuality:
    def total(name: str) -> int:
        return sum(getattr(part, name) for part in parts)

    return GuessQuality(
        rounds=total("rounds"),
        accepted=total("accepted"),
        hits=total("hits"),
        accepted_by_length=[sum(column) for column in zip(*(part.accepted_by_length for part in parts), strict=True)],
        positions=total("positions"),
        agreements=total("agreements"),
    )


def run(plan: HeadRun) -> float:
    """Do it all; returns the largest difference that the self-check found."""
    started = time.monotonic()

    def left_s() -> float:
        return plan.budget_s - (time.monotonic() - started)

    tests = read_tests(plan.tests)
    length = plan.training.run.max_length_tokens
    settings = AnswerSettings(max_length_tokens=length, max_prompt_tokens=length * 2 // 3)
    with answering(str(demo.TARGET), settings, device=plan.device) as llm:
        corpus = training_corpus(plan, llm, settings, tests)
        test_sets = answered_tests(plan, llm, settings, tests)
    on_gpu = plan.device.startswith("cuda")
    if on_gpu:
        torch.cuda.empty_cache()
    target = load_hf(demo.TARGET, device=plan.device, dtype=torch.bfloat16 if on_gpu else torch.float32)
    reserve_s = max(3.0, 0.1 * plan.budget_s)
    training = replace(plan.training, run=replace(plan.training.run, budget_s=max(1.0, left_s() - reserve_s)))
    logger.info("training for %.0f s on %.2f M tokens", training.run.budget_s, corpus.num_tokens / 1e6)
    began = time.monotonic()
    head, draft_ids, records = train_eagle3(
        target,
        corpus,
        plan.head,
        training,
        device=plan.device,
        log_path=plan.work / "log.jsonl",
        progress=plan.progress,
    )
    seconds = time.monotonic() - began
    save_head(head, target.config, draft_ids, plan.out)
    (plan.out / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    logger.info("wrote %s (%.2f MB)", plan.out, (plan.out / WEIGHTS).stat().st_size / 1e6)
    measured = measure(plan, target, head, draft_ids, test_sets)
    facts = CardFacts(
        target="the bundled target of ssd_lab",
        data=DATA,
        documents=corpus.num_documents,
        tokens=corpus.num_tokens,
        k=plan.k,
        measured=measured,
        hardware=torch.cuda.get_device_name() if on_gpu else "a CPU",
        licence=LICENCE,
        seconds=seconds,
    )
    write_card(plan.out, head, training, facts, records)
    text = next(corpus.tokens[a:b] for a, b in zip(corpus.starts, corpus.starts[1:], strict=False) if b - a > 20)
    difference = largest_difference(head, plan.out, demo.TARGET, text[:60].tolist(), num_steps=4)
    logger.info("self-check: largest difference of a log-probability %.5f; %.0f s left", difference, left_s())
    return difference


def plan_from(arguments: argparse.Namespace, target: ModelConfig) -> HeadRun:
    """The plan that the command line asks for."""
    layers = tuple(arguments.feature_layers or usable_feature_layers(target.num_layers))
    device = str(resolve_device(arguments.device))
    on_gpu = device.startswith("cuda")
    training = Eagle3Training(unroll_steps=arguments.unroll)
    size = arguments.batch_tokens or (training.run.tokens_per_microbatch if on_gpu else 512)
    training = replace(
        training,
        acceptance_weight=arguments.acceptance_weight,
        run=replace(
            training.run,
            tokens_per_microbatch=size,
            matrix_lr=arguments.matrix_lr or training.run.matrix_lr,
            seed=arguments.seed,
        ),
    )
    return HeadRun(
        prompts=arguments.prompts,
        tests=arguments.tests,
        out=arguments.out,
        work=arguments.work,
        budget_s=arguments.budget_s,
        answers_s=arguments.answers_s,
        device=device,
        head=HeadConfig(
            num_heads=target.num_heads,
            num_kv_heads=target.num_kv_heads,
            intermediate_size=arguments.mlp or fitting_mlp(target, arguments.draft_vocab, len(layers)),
            feature_layers=layers,
            head_dim=target.head_dim,
            draft_vocab_size=arguments.draft_vocab,
        ),
        training=training,
        num_own_prompts=arguments.own_prompts,
        passes=arguments.passes,
        k=arguments.k,
        test_prompts=arguments.test_prompts,
        progress=not arguments.quiet,
    )


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--prompts", type=Path, required=True, help="JSON lines with dataset, prompt")
    options.add_argument("--tests", type=Path, help="folder of prompt files to keep apart and to measure on")
    options.add_argument("--out", type=Path, required=True, help="folder for the head")
    options.add_argument("--work", type=Path, default=Path("build/eagle3"), help="answers and log; answers are reused")
    options.add_argument("--budget-s", type=float, default=200.0, help="seconds for everything")
    options.add_argument("--answers-s", type=float, default=40.0, help="of these, for the target's answers")
    options.add_argument("--draft-vocab", type=int, help="draft vocabulary; default: the whole one, the target's head")
    options.add_argument("--feature-layers", type=int, nargs="*", help="layer inputs; the number of layers: the end")
    options.add_argument("--mlp", type=int, help="width of the MLP; default: as fits 8 MB")
    options.add_argument("--unroll", type=int, default=6, help="draft steps in training")
    options.add_argument("--acceptance-weight", type=float, default=0.5, help="share of total variation in the loss")
    options.add_argument("--batch-tokens", type=int, help="tokens of a step")
    options.add_argument("--matrix-lr", type=float, help="learning rate of Muon")
    options.add_argument("--own-prompts", type=int, default=100_000)
    options.add_argument("--passes", type=int, default=4, help="answers to each prompt, at different temperatures")
    options.add_argument("--test-prompts", type=int, default=200, help="of each file")
    options.add_argument("--k", type=int, default=5)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="auto")
    options.add_argument("--quiet", action="store_true", help="no progress bars")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if the saved head does not draft as the trained one does."""
    chosen = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    difference = run(plan_from(chosen, read_shape(demo.TARGET)))
    if difference > LARGEST_DIFFERENCE:
        logger.error("self-check FAILED: the saved head differs by %.4f from the trained one", difference)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
