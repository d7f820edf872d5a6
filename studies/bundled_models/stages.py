"""The stages of making the family; each reads files of a work folder and writes others, so a run can resume."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from ssd_lab.models.files.checkpoint import open_checkpoint
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.distill import train_draft
from ssd_lab.training.evaluate import draft_ranks, guess_quality
from ssd_lab.training.hf_files import load_hf, save_hf
from ssd_lab.training.own_answers import answering, answers, every_pass, greedy_answers
from studies.bundled_models import teacher as teaching
from studies.bundled_models.answers import Answers, filter_answers
from studies.bundled_models.config import FamilyConfig
from studies.bundled_models.prompts import Prompt, file_prompts, own_prompts, without_overlap
from studies.bundled_models.tokenizer import END_ID, prompt_text, save_tokenizer, train_tokenizer
from studies.bundled_models.train_target import train_target

logger = logging.getLogger(__name__)
_ENCODE_CHUNK = 40_000
PASSES = 2  # of the target over its prompts, if the time allows
SAMPLES = 24  # of each test set


@dataclass(frozen=True)
class FamilyRun:
    """Where a run reads and writes."""

    config: FamilyConfig
    work: Path
    teacher_path: Path
    prompts_path: Path
    test_paths: tuple[Path, ...]
    device: str
    progress: bool = True

    @property
    def dtype(self) -> torch.dtype:
        """What models generate in."""
        return torch.bfloat16 if self.device.startswith("cuda") else torch.float32

    def tests(self) -> dict[str, list[dict]]:
        """The rows of each test file, by its name."""
        return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in self.test_paths}


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text, uint16; encoded in parallel by the tokenizer."""
    encoded: list[np.ndarray] = []
    for begin in range(0, len(texts), _ENCODE_CHUNK):
        batch = tokenizer.encode_batch(list(texts[begin : begin + _ENCODE_CHUNK]), add_special_tokens=False)
        encoded += [np.array(e.ids, dtype=np.uint16) for e in batch]
    return encoded


def make_prompts(ctx: FamilyRun) -> None:
    """Prompts for the teacher, and further ones for the target's own answers."""
    texts = [row["prompt"] for rows in ctx.tests().values() for row in rows]
    from_file = file_prompts(ctx.prompts_path)
    total = ctx.config.num_own_prompts + ctx.config.num_self_prompts
    prompts = without_overlap(own_prompts(total, seed=ctx.config.seed), texts)
    from_file = without_overlap(from_file, texts)
    taught = [*from_file, *prompts[: ctx.config.num_own_prompts]]
    write_prompts(ctx.work / "prompts.jsonl", taught)
    # Real prompts are few: they come several times, at different temperatures.
    write_prompts(ctx.work / "self_prompts.jsonl", [*from_file * 3, *prompts[-ctx.config.num_self_prompts :]])
    logger.info("%d prompts for the teacher (%d from the file)", len(taught), len(from_file))


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(asdict(p)) + "\n" for p in prompts))


def read_prompts(path: Path) -> list[Prompt]:
    """Read what `write_prompts` wrote."""
    return [Prompt(**json.loads(line)) for line in path.read_text().splitlines()]


def teach(ctx: FamilyRun) -> None:
    """The teacher answers the prompts until its budget is spent."""
    settings = ctx.config.teacher_answers
    prompts = read_prompts(ctx.work / "prompts.jsonl")
    with answering(str(ctx.teacher_path), settings, device=ctx.device) as llm:
        tokenizer = llm.target.tokenizer
        if tokenizer is None or "<|im_end|>" not in {tokenizer.token_text(end) for end in tokenizer.eos_token_ids}:
            raise ValueError(f"{ctx.teacher_path}: its answers do not end with <|im_end|>; use a ChatML instruct model")
        tokens = {index: tokenizer.encode(teaching.chat_text(prompt.asked)) for index, prompt in enumerate(prompts)}
        stream = teaching.questions(
            prompts,
            {index: line for index, line in tokens.items() if len(line) <= settings.max_prompt_tokens},
            samples=ctx.config.samples_per_prompt,
            file_samples=ctx.config.samples_per_file_prompt,
            temperatures=ctx.config.teacher_temperatures,
            seed=ctx.config.seed,
        )
        found = Answers.collect(answers(llm, stream, settings, budget_s=ctx.config.teacher_budget_s))
    found.save(ctx.work / "answers.npz")
    logger.info("%d answers, %.1f M tokens", len(found), len(found.tokens) / 1e6)


def build_corpus(ctx: FamilyRun) -> None:
    """Filter the answers, train the tokenizer, write the training and the held-out corpus."""
    prompts, given = read_prompts(ctx.work / "prompts.jsonl"), Answers.load(ctx.work / "answers.npz")
    teachers = open_checkpoint(ctx.teacher_path).tokenizer
    if teachers is None:
        raise ValueError(f"{ctx.teacher_path} has no tokenizer: its answers cannot be read")
    kept, counts = filter_answers(given, prompts, teachers)
    logger.info("filters: %s", dict(counts))
    rng = np.random.default_rng(ctx.config.seed)
    order = rng.permutation(len(kept))
    sample: list[str] = []
    room = ctx.config.tokenizer_sample_bytes
    for i in order:
        sample.append(f"{prompts[kept[i].prompt_index].text}\n{kept[i].text}")
        room -= len(sample[-1])
        if room < 0:
            break
    tokenizer = train_tokenizer(sample, vocab_size=ctx.config.target.vocab_size)
    tokenizer.save(str(ctx.work / "tokenizer.json"))
    used = sorted({k.prompt_index for k in kept})
    prompt_tokens = dict(zip(used, encode(tokenizer, [prompt_text(prompts[i].text) for i in used]), strict=True))
    answer_tokens = encode(tokenizer, [k.text + ("<|im_end|>" if k.finished else "") for k in kept])
    limit = ctx.config.target_training.max_length_tokens
    parts: dict[str, list[int]] = {"train": [], "held_out": []}
    for i, item in enumerate(kept):
        if len(prompt_tokens[item.prompt_index]) + len(answer_tokens[i]) > limit:
            counts["too long"] += 1
            continue
        parts["held_out" if item.prompt_index % 100 == 0 else "train"].append(i)
    report: dict[str, object] = {"answers": len(given), "teacher_tokens": len(given.tokens), **counts}
    report["kept_beginnings"] = sum(not k.finished for k in kept)
    for name, indices in parts.items():
        corpus = Corpus.build(
            [prompt_tokens[kept[i].prompt_index] for i in indices], [answer_tokens[i] for i in indices]
        )
        corpus.save(ctx.work / f"{name}.npz")
        report[f"{name}_documents"], report[f"{name}_tokens"] = corpus.num_documents, corpus.num_tokens
    (ctx.work / "corpus_report.json").write_text(json.dumps(report, indent=2))
    logger.info("corpus: %s", report)


def train_the_target(ctx: FamilyRun) -> None:
    """Train the target on the corpus."""
    model = train_target(
        Corpus.load(ctx.work / "train.npz"),
        ctx.config.target,
        ctx.config.target_training,
        device=ctx.device,
        log_path=ctx.work / "target_log.jsonl",
        held_out=Corpus.load(ctx.work / "held_out.npz"),
        progress=ctx.progress,
    )
    save_hf(model, ctx.work / "target")


def answer_as_target(ctx: FamilyRun) -> None:
    """The target answers many prompts itself: the text that drafts are trained on."""
    tokenizer = Tokenizer.from_file(str(ctx.work / "tokenizer.json"))
    settings = ctx.config.self_answers
    prompts = read_prompts(ctx.work / "self_prompts.jsonl")
    order = np.random.default_rng(ctx.config.seed + 1).permutation(len(prompts))
    encoded = encode(tokenizer, [prompt_text(prompts[i].text) for i in order])
    tokens = [line.tolist() for line in encoded if len(line) <= settings.max_prompt_tokens]
    with answering(str(ctx.work / "target"), settings, device=ctx.device) as llm:
        stream = every_pass(tokens, ctx.config.self_temperatures, PASSES)
        batches = answers(llm, stream, settings, budget_s=ctx.config.self_budget_s)
        found = [answer for batch in batches for answer in batch]
    corpus = Corpus.build([tokens[answer.index] for answer in found], [answer.token_ids for answer in found])
    corpus.save(ctx.work / "self.npz")
    logger.info("own answers: %d, %.1f M tokens with prompts", len(found), corpus.num_tokens / 1e6)


def train_the_drafts(ctx: FamilyRun) -> None:
    """Distil the candidate drafts."""
    target = load_hf(ctx.work / "target", device=ctx.device, dtype=ctx.dtype)
    corpus = Corpus.load(ctx.work / "self.npz")
    for name, geometry in ctx.config.drafts.items():
        draft = train_draft(
            target,
            corpus,
            geometry,
            ctx.config.draft_training,
            device=ctx.device,
            acceptance_weight=ctx.config.acceptance_loss_weight,
            acceptance_from=ctx.config.acceptance_loss_from,
            log_path=ctx.work / f"draft_{name}_log.jsonl",
            progress=ctx.progress,
        )
        save_hf(draft, ctx.work / f"draft_{name}")
    (ctx.work / "drafts.done").touch()


def evaluate(ctx: FamilyRun, *, k: int = 6, fan_out: int = 3) -> None:
    """Tokens per round and hit rate of each draft on each test set, and the target's answers as samples."""
    tokenizer = Tokenizer.from_file(str(ctx.work / "tokenizer.json"))
    drafts = {
        name: load_hf(ctx.work / f"draft_{name}", device=ctx.device, dtype=ctx.dtype) for name in ctx.config.drafts
    }
    settings = replace(ctx.config.self_answers, max_new_tokens=ctx.config.evaluation_new_tokens)
    report: dict[str, dict] = {}
    samples: list[dict] = []
    with answering(str(ctx.work / "target"), settings, device=ctx.device) as llm:
        for name, rows in ctx.tests().items():
            picked = np.random.default_rng(ctx.config.seed).permutation(len(rows))
            tokens = encode(tokenizer, [prompt_text(rows[i]["prompt"]) for i in picked])
            fitting = [i for i, line in enumerate(tokens) if len(line) <= settings.max_prompt_tokens]
            fitting = fitting[: ctx.config.evaluation_prompts]
            prompts = [tokens[i].tolist() for i in fitting]
            if not prompts:
                continue
            lines = greedy_answers(llm, prompts, settings)
            finished = sum(line[-1] == END_ID for line in lines)
            report[name] = {"prompts": len(prompts), "finished": finished / len(lines)}
            for draft_name, draft in drafts.items():
                quality = guess_quality(draft_ranks(draft, prompts, lines), k=k, fan_out=fan_out)
                report[name][draft_name] = {
                    "tokens_per_round": quality.tokens_per_round,
                    "hit_rate": quality.hit_rate,
                    "agreement": quality.agreement,
                    "rounds": quality.rounds,
                    "accepted_by_length": quality.accepted_by_length,
                }
            for i, line in list(zip(fitting, lines, strict=True))[:SAMPLES]:
                row = rows[picked[i]]
                samples.append(
                    {"dataset": name, "id": row["id"], "prompt": row["prompt"], "answer": tokenizer.decode(line)}
                )
    (ctx.work / "evaluation.json").write_text(json.dumps(report, indent=1))
    (ctx.work / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    logger.info("evaluation: %s", json.dumps(report))


def best_draft(report: dict[str, dict], names: Sequence[str]) -> str:
    """The draft with most tokens per round over all rounds; the first one unless another is 2 % better."""
    scores = {}
    for name in names:
        rounds = sum(part[name]["rounds"] for part in report.values())
        emitted = sum(part[name]["rounds"] * part[name]["tokens_per_round"] for part in report.values())
        scores[name] = emitted / max(1, rounds)
    best = max(scores, key=lambda name: scores[name])
    return names[0] if scores[best] < 1.02 * scores[names[0]] else best


def bundle(ctx: FamilyRun) -> None:
    """Put the target, the chosen draft and the tokenizer together."""
    names = list(ctx.config.drafts)
    path = ctx.work / "evaluation.json"
    name = best_draft(json.loads(path.read_text()), names) if path.exists() else names[0]
    tokenizer = Tokenizer.from_file(str(ctx.work / "tokenizer.json"))
    for role, source in {"target": "target", "draft": f"draft_{name}"}.items():
        folder = ctx.work / "family" / role
        shutil.copytree(ctx.work / source, folder, dirs_exist_ok=True)
        save_tokenizer(tokenizer, folder, max_length_tokens=ctx.config.target.max_positions)
    (ctx.work / "family" / "family.json").write_text(json.dumps({"draft": name}, indent=2) + "\n")
    logger.info("draft: %s", name)


STAGES: dict[str, tuple[Callable[[FamilyRun], None], str]] = {
    "prompts": (make_prompts, "self_prompts.jsonl"),
    "teach": (teach, "answers.npz"),
    "corpus": (build_corpus, "corpus_report.json"),
    "target": (train_the_target, "target/model.safetensors"),
    "self": (answer_as_target, "self.npz"),
    "drafts": (train_the_drafts, "drafts.done"),
    "evaluate": (evaluate, "samples.jsonl"),
    "bundle": (bundle, "family/family.json"),
}


def completed(ctx: FamilyRun) -> list[str]:
    """Stages whose last output exists."""
    return [name for name, (_, output) in STAGES.items() if (ctx.work / output).exists()]
