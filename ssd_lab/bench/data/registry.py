"""The sets of prompts: where each comes from, under which licence, and what of it is bundled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ssd_lab.bench.data import sources
from ssd_lab.bench.data.sources import ReadRow
from ssd_lab.errors import DatasetError

SAMPLES = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Dataset:
    """One set. repo: its id among the hub's datasets; files: patterns of that repository's files, in order.

    read_row: how a row of the source becomes a prompt. not_bundled: why no sample comes with the package, if none does.
    """

    name: str
    title: str
    repo: str
    split: str
    files: tuple[str, ...]
    licence: str
    read_row: ReadRow
    not_bundled: str = ""

    @property
    def sample_file(self) -> Path:
        """The bundled sample, if there is one."""
        return SAMPLES / f"{self.name}.jsonl"

    @cached_property
    def bundled_rows(self) -> int:
        """Prompts that come with the package."""
        if not self.sample_file.is_file():
            return 0
        with self.sample_file.open("rb") as lines:
            return sum(1 for line in lines if line.strip())


_ALL = (
    Dataset(
        "gsm8k", "GSM8K", "openai/gsm8k", "test", ("main/test-*.parquet",), "MIT", sources.gsm8k
    ),
    Dataset(
        "humaneval", "HumanEval", "openai/openai_humaneval", "test", ("openai_humaneval/test-*.parquet",), "MIT",
        sources.humaneval,
    ),
    Dataset(
        "alpaca", "Alpaca", "tatsu-lab/alpaca", "train", ("data/train-*.parquet",), "CC BY-NC 4.0", sources.alpaca,
        not_bundled="its licence is for non-commercial use only",
    ),
    Dataset(
        "ultrafeedback", "UltraFeedback", "HuggingFaceH4/ultrafeedback_binarized", "test_prefs",
        ("data/test_prefs-*.parquet",), "MIT", sources.ultrafeedback,
    ),
    Dataset(
        "c4", "C4 (English)", "allenai/c4", "validation", ("en/c4-validation.00000-of-*.json.gz",), "ODC-BY 1.0",
        sources.c4,
    ),
    Dataset(
        "mt_bench", "MT-bench", "HuggingFaceH4/mt_bench_prompts", "train", ("raw/question.jsonl",), "Apache-2.0",
        sources.mt_bench,
    ),
    Dataset(
        "spec_bench", "Spec-Bench", "RedHatAI/speculator_benchmarks", "test",
        tuple(f"{part}.jsonl" for part in ("question", "translation", "summarization", "qa", "math_reasoning", "rag")),
        "Apache-2.0, parts differ", sources.spec_bench,
    ),
)  # fmt: skip

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _ALL}

_ALIASES = {"gsm": "gsm8k", "human_eval": "humaneval", "mtbench": "mt_bench", "specbench": "spec_bench"}


def find_dataset(name: str) -> Dataset:
    """The set of that name; `MT-bench` and `gsm` are understood too. Raises DatasetError."""
    plain = name.strip().lower().replace("-", "_")
    found = DATASETS.get(_ALIASES.get(plain, plain))
    if found is None:
        raise DatasetError(f"{name!r} is no set of prompts that is known: there are {', '.join(DATASETS)}")
    return found
