"""The bundled samples: which rows of each set, why these, and how they are drawn."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from pathlib import Path

from ssd_lab.bench.data.load import read_file
from ssd_lab.bench.data.prepare import PreparedSet, find_source, write_prompts
from ssd_lab.bench.data.prompt import BenchPrompt
from ssd_lab.bench.data.registry import DATASETS
from ssd_lab.errors import DatasetError

SEED = 2603
LIMIT_BYTES = 2_000_000

_CONTACT = re.compile(r"https?://|www\.|[\w.+-]+@[\w-]+\.\w|(?:\+?\d[\s().-]?){9,}")
_MT_BENCH = dict.fromkeys(
    ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"), "Apache-2.0"
)


@dataclass(frozen=True)
class Sample:
    """What of a set may be bundled, and how much of it is.

    rows: at most so many. shortest, longest: characters; other texts are left out, but longer ones are cut after a word
    if `cut`. from_the_web: texts with addresses, links or telephone numbers are left out. licences: of each category,
    for sets that have categories; a category without one is left out. left_out: ids that reading showed to be unfit
    (coarse, about a private person, or an agency's news).
    """

    rows: int | None = None
    shortest: int = 1
    longest: int | None = None
    cut: bool = False
    from_the_web: bool = False
    licences: dict[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()


SAMPLES: dict[str, Sample] = {
    "gsm8k": Sample(rows=512),
    "humaneval": Sample(),
    "ultrafeedback": Sample(
        rows=256,
        longest=500,
        from_the_web=True,
        left_out=frozenset(f"ultrafeedback/{row}" for row in (10185, 11739, 22443, 61630)),
    ),
    "c4": Sample(
        rows=192,
        shortest=200,
        longest=700,
        cut=True,
        from_the_web=True,
        left_out=frozenset(f"c4/{row}" for row in (32, 56, 61, 105, 106, 108, 224, 271)),
    ),
    "mt_bench": Sample(licences=_MT_BENCH),
    "spec_bench": Sample(licences={**_MT_BENCH, "math_reasoning": "MIT", "qa": "CC BY-SA 3.0"}),
}


def write_samples(source: Path, out: Path, *, seed: int = SEED) -> list[PreparedSet]:
    """Draw every sample from sets below `source` and write `out/<name>.jsonl`; the same rows give the same bytes.

    Raises DatasetError if a set is not there, or if all of them together are larger than the package should be.
    """
    written = []
    for name, sample in SAMPLES.items():
        dataset = DATASETS[name]
        files = find_source(dataset, source, alone=False)
        if not files:
            raise DatasetError(f"{source} holds no {name}: the samples are drawn from {', '.join(SAMPLES)}")
        prompts = list(chain.from_iterable(read_file(file, dataset) for file in files))
        file = out / f"{name}.jsonl"
        rows = write_prompts(draw(prompts, sample, seed), file)
        written.append(PreparedSet(name, file, rows, ", ".join(map(str, files))))
    size_bytes = sum(prepared.file.stat().st_size for prepared in written)
    if size_bytes > LIMIT_BYTES:
        raise DatasetError(f"the samples take {size_bytes} bytes, and at most {LIMIT_BYTES} are bundled")
    return written


def draw(prompts: Iterable[BenchPrompt], sample: Sample, seed: int) -> list[BenchPrompt]:
    """The rows of a sample in the order of the seed, the categories taking turns, so that any first rows are mixed."""
    fit = [fitted for prompt in prompts if (fitted := _fitted(prompt, sample)) is not None]
    fit.sort(key=lambda prompt: hashlib.sha256(f"{seed}/{prompt.id}".encode()).digest())
    categories: dict[str, list[BenchPrompt]] = {}
    for prompt in fit:
        categories.setdefault(_category(prompt) if sample.licences else "", []).append(prompt)
    turns = chain.from_iterable(zip_longest(*(categories[name] for name in sorted(categories))))
    return [prompt for prompt in turns if prompt is not None][: sample.rows]


def _fitted(prompt: BenchPrompt, sample: Sample) -> BenchPrompt | None:
    """The prompt as it is bundled, or None if it is not."""
    if prompt.id in sample.left_out or len(prompt.text) < sample.shortest:
        return None
    extra = dict(prompt.extra)
    if sample.licences:
        category = _category(prompt)
        if category not in sample.licences:
            return None
        extra |= {"category": category, "licence": sample.licences[category]}
    text = prompt.text
    if sample.longest is not None and len(text) > sample.longest:
        if not sample.cut:
            return None
        text = text[: sample.longest].rsplit(None, 1)[0]
    if sample.from_the_web and _CONTACT.search(text):
        return None
    return replace(prompt, text=text, extra=extra)


def _category(prompt: BenchPrompt) -> str:
    """As the row says, or its id: `mt_bench/writing/81`."""
    return str(prompt.extra.get("category") or prompt.id.split("/")[1])
