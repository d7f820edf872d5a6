"""Rounds of whole runs at one placement: one strategy and its settings, at several batch sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, ClassVar

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.figures import estimates
from ssd_lab.bench.inputs import Input
from ssd_lab.bench.multi.breakdown import breakdown
from ssd_lab.bench.multi.cell import Cell, Kept
from ssd_lab.bench.multi.loading import loaded
from ssd_lab.bench.multi.pairs import Pair
from ssd_lab.bench.multi.placements import Place
from ssd_lab.bench.session import Session
from ssd_lab.trace import Trace

DATASETS = ("humaneval", "ultrafeedback", "gsm8k")
TRACES = "traces"
WARM_TOKENS = 16
MAX_MODEL_LEN = 2048


@dataclass(frozen=True)
class RoundsCell(Cell):
    """batches: one engine runs them one after the other, so many sequences at once. prompts: at least so many at batch
    1. engine: further fields of a benchmark.
    """

    piece: ClassVar[str] = "rounds"

    pair: Pair
    place: Place
    strategy: str
    fields: dict[str, Any]
    batches: tuple[int, ...]
    prompts: int
    tokens: int
    datasets: tuple[str, ...] = DATASETS
    engine: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The strategy, as it is written."""
        return " ".join([self.strategy, *(f"{name}={value}" for name, value in self.fields.items())])

    @property
    def key(self) -> str:
        """See `Cell`."""
        return f"{self.group}/{self.label}"

    @property
    def group(self) -> str:
        """A target that is whole is loaded once."""
        return f"{self.piece}/{self.pair.name}/{self.place.text}"

    @property
    def estimate_s(self) -> float:
        """Processes, weights, graphs; then a hundred tokens a second, two thirds of that for each further batch."""
        weights_s = 2e-9 * self.pair.weight_bytes() / self.place.ranks
        return 25.0 + weights_s + self.tokens * 1e-2 * (self.prompts + 2 * len(self.batches))

    def config(self) -> BenchConfig:
        """The benchmark whose engine and prompts these are."""
        most = max(self.prompts, *self.batches)
        return BenchConfig(
            strategy=self.strategy,
            strategy_fields=self.fields,
            target=self.pair.target,
            draft=self.pair.draft,
            placement=self.place.text,
            datasets=self.datasets,
            num_sequences=-(-most // len(self.datasets)),
            output_len=self.tokens,
            batch=max(self.batches),
            max_model_len=MAX_MODEL_LEN,
            **self.engine,
        )

    def run(self, kept: Kept) -> dict[str, Any]:
        """Of each batch: figures, what rounds are made of, digests of the texts, and where its traces are."""
        with Session(self.config(), partial(_load, kept)) as session:
            inputs = _in_turn(list(session.inputs.values()))
            params = session.params(inputs, "warm-up", 0, self.tokens)
            session.llm.warm_up([each.token_ids for each in inputs], params, batch_sizes=self.batches)
            found = [self._batch(kept, session, inputs, batch) for batch in self.batches]
            reads = sum(linear.bytes for linear in session.llm.target.decoder.linears())
        return {"batches": found, "num_devices": self.place.num_devices, "rank_reads_bytes": reads}

    def _batch(self, kept: Kept, session: Session, inputs: Sequence[Input], batch: int) -> dict[str, Any]:
        together = [inputs[start : start + batch] for start in range(0, max(self.prompts, batch), batch)]
        session.run(together[0], "warm-up", 0, min(WARM_TOKENS, self.tokens))
        repeats, traces, degraded = [], [], None
        for number, some in enumerate(group for group in together if len(group) == batch):
            run, measured = session.repeat_of(some, "rounds", number)
            repeats.append(measured)
            traces.append(run.trace)
            degraded = degraded or run.trace.meta.get("degraded")
        return {
            "batch": batch,
            "figures": {name: each.as_dict() for name, each in estimates(repeats, session.num_gpus).items()},
            "rounds": breakdown(traces, batch),
            "digests": {each.prompt_id: each.digest for repeat in repeats for each in repeat.requests},
            "traces": [self._saved(kept, trace, batch, number) for number, trace in enumerate(traces)],
            "degraded": degraded,
        }

    def _saved(self, kept: Kept, trace: Trace, batch: int, number: int) -> str:
        name = hashlib.blake2b(self.key.encode(), digest_size=6).hexdigest()
        place = f"{TRACES}/{name}-batch{batch}-{number}.jsonl.gz"
        (kept.folder / TRACES).mkdir(exist_ok=True)
        trace.save(kept.folder / place)
        return place


def _load(kept: Kept, source: str, *, dtype: str, device: str, bitwise: bool, progress: bool) -> Any:
    return loaded(kept, source, device=device, dtype=dtype, bitwise=bitwise)


def _in_turn(sets: Sequence[Sequence[Input]]) -> list[Input]:
    """One prompt of each set, then the next of each."""
    return list(chain.from_iterable(zip(*sets, strict=True)))
