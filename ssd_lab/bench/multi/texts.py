"""Cells of correctness: texts at temperature 0 token by token, and distributions at temperature 1."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from ssd_lab.bench.multi.cell import Cell, Kept
from ssd_lab.bench.multi.extent import Extent
from ssd_lab.bench.multi.pairs import Pair
from ssd_lab.bench.multi.placements import Place
from ssd_lab.check.cells import Cell as CheckCell
from ssd_lab.check.cells import RefusedError, Setting
from ssd_lab.check.check_report import CheckReport
from ssd_lab.check.checking import NUM_CONTEXTS, SAMPLED_BATCH, run_cells
from ssd_lab.check.prompts import check_prompts
from ssd_lab.check.subjects import BASELINE, Subject
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.strategies import StrategyConfig, registry

START_S = 12.0  # of an engine with its processes, once the machine has seen its kernels
SAMPLED_S = 60.0


@dataclass(frozen=True)
class _Engines:
    """Opens engines of one placement; each loads what it needs by name, so that no whole target stands beside."""

    pair: Pair
    place: Place
    engine: dict[str, Any]

    def llm(self, strategy: StrategyConfig, *, max_batch: int, record_details: int = 0) -> LLM:
        """Close it."""
        return LLM(
            self.pair.target, self.pair.draft, strategy, progress=False, placement=self.place.text,
            max_batch=max_batch, max_model_len=1024, record=True, record_details=record_details, **self.engine,
        )  # fmt: skip


@dataclass(frozen=True)
class TextCell(Cell):
    """One strategy at one placement. sampled: at temperature 1, else at 0. engine: further fields of EngineConfig."""

    piece: ClassVar[str] = "correct"

    pair: Pair
    place: Place
    strategy: str
    fields: dict[str, Any]
    sampled: bool
    extent: Extent
    engine: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The strategy, as it is written."""
        return " ".join([self.strategy, *(f"{name}={_short(value)}" for name, value in self.fields.items())])

    @property
    def key(self) -> str:
        """See `Cell`."""
        what = "temperature 1" if self.sampled else "temperature 0"
        return f"{self.group}/{self.label}/{what}"

    @property
    def group(self) -> str:
        """The texts to compare with are made once a process."""
        return f"{self.piece}/{self.pair.name}/{self.place.text}"

    @property
    def estimate_s(self) -> float:
        """An engine for each batch size."""
        if self.sampled:
            return START_S + SAMPLED_S * self.extent.draws / 3000
        return len(self.extent.batches) * START_S + 2e-3 * self.extent.prompts * self.extent.tokens

    def run(self, kept: Kept) -> dict[str, Any]:
        """See `Cell`."""
        setting = kept.things.setdefault(f"setting {self.group}", self._setting())
        subject = Subject(self.label, registry.config(self.strategy, self.fields), self.fields)
        try:
            return self._sample(setting, subject) if self.sampled else self._compare(setting, subject)
        except RefusedError as error:
            raise ConfigError(str(error)) from error

    def _setting(self) -> Setting:
        prompts = check_prompts(self.extent.prompts)
        engines = _Engines(self.pair, self.place, self.engine)
        return Setting(engines, prompts, self.extent.tokens, prompts[:NUM_CONTEXTS], seed=0)

    def _compare(self, setting: Setting, subject: Subject) -> dict[str, Any]:
        """Of each batch size how many tokens and sequences differ, and where each first does."""
        found = []
        for batch in self.extent.batches:
            if subject.label == BASELINE and batch == 1:
                continue  # what all others are compared with
            greedy = setting.run(CheckCell(self.pair.name, subject, 0.0, batch)).greedy
            assert greedy is not None  # of a cell at temperature 0
            found.append({**asdict(greedy), "same": greedy.same})
        return {"same": all(each["same"] for each in found), "greedy": found}

    def _sample(self, setting: Setting, subject: Subject) -> dict[str, Any]:
        """Every path of every law, with its p-values after the correction for all of them."""
        cell = CheckCell(self.pair.name, subject, 1.0, min(SAMPLED_BATCH, self.extent.batches[-1]), self.extent.draws)
        report = CheckReport(settings={}, num_cells=1)
        run_cells(report, [cell], setting.run, progress=False)
        if report.interrupted:
            raise KeyboardInterrupt
        told = report.as_dict()
        return {"same": not report.rejected, "paths": told["paths"], "verdict": told["verdict"]}


def _short(value: Any) -> str:
    return "+".join(str(part) for part in value.values()) if isinstance(value, dict) else str(value)
