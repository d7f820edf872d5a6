"""Real prompts for benchmarks: which sets there are, how they are got, and how they are read."""

from __future__ import annotations

from ssd_lab.bench.data.load import Place, load_prompts, locate
from ssd_lab.bench.data.prompt import BenchPrompt
from ssd_lab.bench.data.registry import DATASETS, Dataset, find_dataset

__all__ = ["DATASETS", "BenchPrompt", "Dataset", "Place", "find_dataset", "load_prompts", "locate"]
