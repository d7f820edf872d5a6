"""Train the bundled target's EAGLE3 head: `python -m ssd_lab.training.eagle3_bundled --prompts FILE --out DIR`.

Needs torch, tokenizers, safetensors, numpy and tqdm only.
"""

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
from tokenizers import Tokenizer

from ssd_lab import demo
from ssd_lab.training.card import CardFacts, Measured
from ssd_lab.training.config import GenerationConfig, ModelConfig
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.eagle3 import Eagle3Training, train_eagle3, usable_feature_layers
from ssd_lab.training.eagle3_check import largest_difference
from ssd_lab.training.eagle3_export import WEIGHTS, save_head, write_card
from ssd_lab.training.eagle3_measure import head_ranks
from ssd_lab.training.eagle3_model import HeadConfig, TrainableHead
from ssd_lab.training.evaluate import GuessQuality, draft_ranks, guess_quality
from ssd_lab.training.family import resolve_device
from ssd_lab.training.model import Llama, load_hf
from ssd_lab.training.own_answers import fitting_generation, greedy_answers, own_answers
from ssd_lab.training.prompts import file_prompts, own_prompts, without_overlap
from ssd_lab.training.tokenizer import END_ID, END_OF_TEXT_ID, prompt_text

logger = logging.getLogger(__name__)

LARGEST_BYTES = 7_950_000  # of the weights; the file has a short header besides
LARGEST_DIFFERENCE = 0.01  # between the two forwards, in log-probability
NO_TESTS = {"train_prompts", "c4"}  # the one is trained on, the other has texts and no prompts
LICENCE = "Apache-2.0, as the bundled models; prompts: see docs/models.md (none of the non-commercial parts)"


@dataclass(frozen=True)
class Plan:
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


def training_corpus(
    plan: Plan, target: Llama, tokenizer: Tokenizer, tests: dict[str, list[str]], budget_s: float
) -> Corpus:
    """The target's answers, kept in the work folder, so that a second run need not make them again."""
    path = plan.work / "answers.npz"
    if path.exists():
        logger.info("answers: those in %s", path)
        return Corpus.load(path)
    test_texts = [text for texts in tests.values() for text in texts]
    own = without_overlap(own_prompts(plan.num_own_prompts, seed=plan.training.run.seed + 31), test_texts)
    real = without_overlap(file_prompts(plan.prompts), test_texts)
    texts = [prompt_text(prompt.text) for prompt in [*own, *real * 3]]  # real prompts are few: they come more often
    order = np.random.default_rng(plan.training.run.seed).permutation(len(texts))
    encoded = [e.ids for e in tokenizer.encode_batch([texts[i] for i in order], add_special_tokens=False)]
    logger.info("prompts: %d of our own, %d real ones", len(own), len(real))
    length = plan.training.run.max_length_tokens
    generation = GenerationConfig(
        rows=12_288, max_length_tokens=length, max_prompt_tokens=length * 2 // 3, max_new_tokens=224, min_p=0.0
    )
    corpus = own_answers(
        target,
        encoded,
        fitting_generation(generation, target, plan.device),
        eos_ids=[END_ID],
        passes=plan.passes,
        budget_s=budget_s,
        progress=plan.progress,
    )
    plan.work.mkdir(parents=True, exist_ok=True)
    corpus.save(path)
    return corpus


def measure(
    plan: Plan,
    target: Llama,
    head: TrainableHead,
    draft_ids: torch.Tensor | None,
    tokenizer: Tokenizer,
    tests: dict[str, list[str]],
) -> dict[str, Measured]:
    """Tokens per round of the head and of the bundled draft on each test set, and on all together."""
    draft = load_hf(demo.DRAFT, device=plan.device, dtype=target.model.embed_tokens.weight.dtype)
    generation = GenerationConfig(rows=plan.test_prompts, max_new_tokens=128, min_p=0.0)
    measured: dict[str, Measured] = {}
    qualities: list[tuple[GuessQuality, GuessQuality]] = []
    number = 0
    for name, texts in tests.items():
        picked = np.random.default_rng(0).permutation(len(texts))
        tokens = [tokenizer.encode(prompt_text(texts[i]), add_special_tokens=False).ids for i in picked]
        prompts = [line for line in tokens if len(line) <= generation.max_prompt_tokens][: plan.test_prompts]
        if not prompts:
            continue
        prompts, answers = greedy_answers(target, prompts, generation, eos_ids=[END_ID])
        ranks = head_ranks(head, target, prompts, answers, k=plan.k, draft_ids=draft_ids)
        ours = guess_quality(ranks, k=plan.k, fan_out=3)
        others = guess_quality(draft_ranks(draft, prompts, answers), k=plan.k, fan_out=3)
        qualities.append((ours, others))
        number += len(prompts)
        measured[name] = Measured(
            len(prompts), ours.rounds, ours.tokens_per_round, ours.agreement, others.tokens_per_round
        )
        logger.info("%s: head %.2f, draft %.2f tokens per round", name, ours.tokens_per_round, others.tokens_per_round)
    if qualities:
        ours, others = (_together([pair[side] for pair in qualities]) for side in (0, 1))
        measured["all, weighted by rounds"] = Measured(
            number, ours.rounds, ours.tokens_per_round, ours.agreement, others.tokens_per_round
        )
    return measured


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


def run(plan: Plan) -> float:
    """Do it all; returns the largest difference that the self-check found."""
    started = time.monotonic()

    def left_s() -> float:
        return plan.budget_s - (time.monotonic() - started)

    dtype = torch.bfloat16 if plan.device.startswith("cuda") else torch.float32
    target = load_hf(demo.TARGET, device=plan.device, dtype=dtype)
    tokenizer = Tokenizer.from_file(str(demo.TARGET / "tokenizer.json"))
    tests = read_tests(plan.tests)
    corpus = training_corpus(plan, target, tokenizer, tests, min(plan.answers_s, 0.4 * plan.budget_s))
    if plan.device.startswith("cuda"):
        torch.cuda.empty_cache()
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
    save_head(head, target.config, draft_ids, plan.out, bos_id=END_OF_TEXT_ID, eos_id=END_ID)
    (plan.out / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    logger.info("wrote %s (%.2f MB)", plan.out, (plan.out / WEIGHTS).stat().st_size / 1e6)
    measured = measure(plan, target, head, draft_ids, tokenizer, tests)
    facts = CardFacts(
        target="the bundled target of ssd_lab",
        data="the generator of `ssd_lab.training.prompts` and the commercially usable parts of a file of real ones",
        documents=corpus.num_documents,
        tokens=corpus.num_tokens,
        k=plan.k,
        measured=measured,
        hardware=torch.cuda.get_device_name() if plan.device.startswith("cuda") else "a CPU",
        licence=LICENCE,
        seconds=seconds,
    )
    write_card(plan.out, head, training, facts, records)
    text = next(corpus.tokens[a:b] for a, b in zip(corpus.starts, corpus.starts[1:], strict=False) if b - a > 20)
    difference = largest_difference(head, plan.out, demo.TARGET, text[:60].tolist(), num_steps=4)
    logger.info("self-check: largest difference of a log-probability %.5f; %.0f s left", difference, left_s())
    return difference


def plan_from(arguments: argparse.Namespace, target: ModelConfig) -> Plan:
    """The plan that the command line asks for."""
    layers = tuple(arguments.feature_layers or usable_feature_layers(target.num_layers))
    device = resolve_device(arguments.device)
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
    return Plan(
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
    target = ModelConfig.from_hf(json.loads((demo.TARGET / "config.json").read_text(encoding="utf-8")))
    difference = run(plan_from(chosen, target))
    if difference > LARGEST_DIFFERENCE:
        logger.error("self-check FAILED: the saved head differs by %.4f from the trained one", difference)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
