"""The stages of making the family; each reads files of a work folder and writes others, so a run can resume."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from ssd_lab.training import teacher as teaching
from ssd_lab.training.answers import Answers, filter_answers
from ssd_lab.training.config import FamilyConfig
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.distill import train_drafts
from ssd_lab.training.evaluate import draft_ranks, guess_quality
from ssd_lab.training.generate import BulkGenerator, Request
from ssd_lab.training.model import load_hf, save_hf
from ssd_lab.training.pretrain import train_target
from ssd_lab.training.prompts import Prompt, file_prompts, own_prompts, without_overlap
from ssd_lab.training.tokenizer import END_ID, END_OF_TEXT_ID, prompt_text, save_tokenizer, train_tokenizer

logger = logging.getLogger(__name__)
_ENCODE_CHUNK = 40_000


@dataclass(frozen=True)
class Context:
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


def make_prompts(ctx: Context) -> None:
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


def teacher_tokenizer(path: Path) -> Tokenizer:
    """tokenizer.json beside the GGUF file, or else converted from it."""
    beside = path.parent / "tokenizer.json"
    if beside.exists():
        return Tokenizer.from_file(str(beside))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer


def teach(ctx: Context) -> None:
    """The teacher answers the prompts until its budget is spent."""
    config = ctx.config.teacher_generation
    tokenizer = teacher_tokenizer(ctx.teacher_path)
    prompts = read_prompts(ctx.work / "prompts.jsonl")
    tokens = encode(tokenizer, [teaching.chat_text(p.asked) for p in prompts])
    fitting = [i for i, t in enumerate(tokens) if len(t) <= config.max_prompt_tokens]
    index_of = np.array(fitting, dtype=np.int32)
    stream = teaching.requests(
        [prompts[i] for i in fitting],
        [tokens[i].tolist() for i in fitting],
        samples=ctx.config.samples_per_prompt,
        file_samples=ctx.config.samples_per_file_prompt,
        temperatures=ctx.config.teacher_temperatures,
        seed=ctx.config.seed,
    )
    end_id = tokenizer.token_to_id("<|im_end|>")
    if end_id is None:
        raise ValueError(f"{ctx.teacher_path}: the teacher's tokenizer has no <|im_end|>; use a ChatML instruct model")
    model = teaching.load_teacher(ctx.teacher_path, device=ctx.device, dtype=ctx.dtype)
    generator = BulkGenerator(model, config, eos_id=end_id)
    answers = Answers.collect(generator.run(stream, budget_s=ctx.config.teacher_budget_s))
    replace(answers, prompt_index=index_of[answers.prompt_index]).save(ctx.work / "answers.npz")
    logger.info("%d answers, %.1f M tokens", len(answers), len(answers.tokens) / 1e6)


def build_corpus(ctx: Context) -> None:
    """Filter the answers, train the tokenizer, write the training and the held-out corpus."""
    prompts, answers = read_prompts(ctx.work / "prompts.jsonl"), Answers.load(ctx.work / "answers.npz")
    kept, counts = filter_answers(answers, prompts, teacher_tokenizer(ctx.teacher_path))
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
    report: dict[str, object] = {"answers": len(answers), "teacher_tokens": len(answers.tokens), **counts}
    report["kept_beginnings"] = sum(not k.finished for k in kept)
    for name, indices in parts.items():
        corpus = Corpus.build(
            [prompt_tokens[kept[i].prompt_index] for i in indices], [answer_tokens[i] for i in indices]
        )
        corpus.save(ctx.work / f"{name}.npz")
        report[f"{name}_documents"], report[f"{name}_tokens"] = corpus.num_documents, corpus.num_tokens
    (ctx.work / "corpus_report.json").write_text(json.dumps(report, indent=2))
    logger.info("corpus: %s", report)


def train_the_target(ctx: Context) -> None:
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
    save_hf(model, ctx.work / "target", bos_id=END_OF_TEXT_ID, eos_id=END_ID)


def self_requests(tokens: Sequence[list[int]], temperatures: Sequence[float], *, passes: int) -> Iterator[Request]:
    """Every prompt once per pass, with the next temperature each time."""
    for number in range(passes):
        for index, prompt in enumerate(tokens):
            yield Request(index, prompt, temperatures[(index + number) % len(temperatures)])


def answer_as_target(ctx: Context) -> None:
    """The target answers many prompts itself: the text that drafts are trained on."""
    tokenizer = Tokenizer.from_file(str(ctx.work / "tokenizer.json"))
    target = load_hf(ctx.work / "target", device=ctx.device, dtype=ctx.dtype)
    config = ctx.config.self_generation
    prompts = read_prompts(ctx.work / "self_prompts.jsonl")
    order = np.random.default_rng(ctx.config.seed + 1).permutation(len(prompts))
    tokens = encode(tokenizer, [prompt_text(prompts[i].text) for i in order])
    tokens = [t for t in tokens if len(t) <= config.max_prompt_tokens]
    stream = self_requests([t.tolist() for t in tokens], ctx.config.self_temperatures, passes=2)
    generator = BulkGenerator(target, config, eos_id=END_ID)
    answers = Answers.collect(generator.run(stream, budget_s=ctx.config.self_budget_s))
    end = np.array([END_ID], dtype=np.uint16)
    texts = [
        np.concatenate([answers.of(i), end]) if answers.finished[i] else answers.of(i) for i in range(len(answers))
    ]
    corpus = Corpus.build([tokens[i] for i in answers.prompt_index], texts)
    corpus.save(ctx.work / "self.npz")
    logger.info("own answers: %d, %.1f M tokens with prompts", len(answers), corpus.num_tokens / 1e6)


def train_the_drafts(ctx: Context) -> None:
    """Distil the candidate drafts."""
    drafts = train_drafts(
        load_hf(ctx.work / "target", device=ctx.device, dtype=ctx.dtype),
        Corpus.load(ctx.work / "self.npz"),
        ctx.config.drafts,
        ctx.config.draft_training,
        device=ctx.device,
        acceptance_weight=ctx.config.acceptance_loss_weight,
        acceptance_from=ctx.config.acceptance_loss_from,
        log_path=ctx.work / "draft_log.jsonl",
        progress=ctx.progress,
    )
    for name, draft in drafts.items():
        save_hf(draft, ctx.work / f"draft_{name}", bos_id=END_OF_TEXT_ID, eos_id=END_ID)
    (ctx.work / "drafts.done").touch()


def evaluate(ctx: Context, *, k: int = 6, fan_out: int = 3) -> None:
    """Tokens per round and hit rate of each draft on each test set, and the target's answers as samples."""
    tokenizer = Tokenizer.from_file(str(ctx.work / "tokenizer.json"))
    target = load_hf(ctx.work / "target", device=ctx.device, dtype=ctx.dtype)
    drafts = {
        name: load_hf(ctx.work / f"draft_{name}", device=ctx.device, dtype=ctx.dtype) for name in ctx.config.drafts
    }
    limit = ctx.config.evaluation_prompts
    config = replace(
        ctx.config.self_generation,
        rows=min(limit, ctx.config.self_generation.rows),
        max_new_tokens=ctx.config.evaluation_new_tokens,
    )
    report: dict[str, dict] = {}
    samples: list[dict] = []
    for name, rows in ctx.tests().items():
        picked = np.random.default_rng(ctx.config.seed).permutation(len(rows))
        tokens = encode(tokenizer, [prompt_text(rows[i]["prompt"]) for i in picked])
        fitting = [i for i, t in enumerate(tokens) if len(t) <= config.max_prompt_tokens][:limit]
        prompts = [tokens[i].tolist() for i in fitting]
        if not prompts:
            continue
        stream = (Request(i, p, 0.0) for i, p in enumerate(prompts))
        answers = Answers.collect(BulkGenerator(target, config, eos_id=END_ID).run(stream))
        asked = [prompts[i] for i in answers.prompt_index]
        lines = [[*answers.of(i).tolist(), *([END_ID] if answers.finished[i] else [])] for i in range(len(answers))]
        report[name] = {"prompts": len(prompts), "finished": float(answers.finished.mean())}
        for draft_name, draft in drafts.items():
            quality = guess_quality(draft_ranks(draft, asked, lines), k=k, fan_out=fan_out)
            report[name][draft_name] = {
                "tokens_per_round": quality.tokens_per_round,
                "hit_rate": quality.hit_rate,
                "agreement": quality.agreement,
                "rounds": quality.rounds,
                "accepted_by_length": quality.accepted_by_length,
            }
        for i in np.argsort(answers.prompt_index)[:24]:  # not the order of finishing: that would favour short answers
            row = rows[picked[fitting[answers.prompt_index[i]]]]
            samples.append(
                {"dataset": name, "id": row["id"], "prompt": row["prompt"], "answer": tokenizer.decode(lines[i])}
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


def bundle(ctx: Context) -> None:
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


STAGES: dict[str, tuple[Callable[[Context], None], str]] = {
    "prompts": (make_prompts, "self_prompts.jsonl"),
    "teach": (teach, "answers.npz"),
    "corpus": (build_corpus, "corpus_report.json"),
    "target": (train_the_target, "target/model.safetensors"),
    "self": (answer_as_target, "self.npz"),
    "drafts": (train_the_drafts, "drafts.done"),
    "evaluate": (evaluate, "samples.jsonl"),
    "bundle": (bundle, "family/family.json"),
}


def completed(ctx: Context) -> list[str]:
    """Stages whose last output exists."""
    return [name for name, (_, output) in STAGES.items() if (ctx.work / output).exists()]
