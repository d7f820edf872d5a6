"""What answers each row of a round: a prepared branch, a guess, or the draft now."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.drafting.batch_control import DraftRound
from ssd_lab.drafting.speculation_cache import Entry, SpeculationCache
from ssd_lab.drafting.worker_learning import WorkerLearning
from ssd_lab.learning.fallback_choice import FallbackKind, FallbackSetting


@dataclass(frozen=True)
class Paths:
    """What answers each row. origins: as in the trace. entries: the branches that are taken. missed: rows whose outcome
    was looked up and not found; kind: the fallback that answers all of these (None: not the same).
    """

    origins: list[str]
    entries: list[Entry | None]
    missed: list[int]
    kind: FallbackKind | None

    @classmethod
    def of(
        cls,
        asked: DraftRound,
        cache: SpeculationCache,
        learning: WorkerLearning,
        fallback: FallbackSetting | None,
        bound: FallbackKind | None = None,
    ) -> Paths:
        """Look the outcomes up, and choose a fallback for those that are not there. A row without an outcome is drafted
        for now, and so is one without a stale branch where that is what `fast` takes. bound: the fallback by which a
        round that runs already was answered.
        """
        count, k = len(asked.rows), learning.k
        if learning.fan_out is None:
            return cls(["draft"] * count, [None] * count, [], None)
        prepared = cache.look_up(asked.request_ids, asked.num_accepted, asked.rows.last_tokens)
        entries = [_fitting(each.exact, k) for each in prepared]
        origins = ["jit" if entry is None else "hit" for entry in entries]
        missed = [row for row, a in enumerate(asked.num_accepted) if a is not None and entries[row] is None]
        kind = learning.rule.choose(count, len(missed)) if missed else None  # where it is bound, too: rounds count
        kind = kind and (bound or kind)
        if kind == "fast":
            source = "stale" if fallback is None else fallback.guesses
            for row in missed:
                entries[row] = _fitting(prepared[row].stale, k) if source == "stale" else None
                origins[row] = "jit" if source == "stale" and entries[row] is None else "fast"
        return cls(origins, entries, missed, None if any(origins[row] != kind for row in missed) else kind)

    def were_found(self, asked: DraftRound, learning: WorkerLearning) -> bool | None:
        """Is this what a lookup on the device finds? None without outcomes."""
        if None in asked.num_accepted:
            return None
        return self.are_of_the_tree and ("fast" not in self.origins or learning.foresees_stale(len(asked.rows)))

    @property
    def taken(self) -> list[int]:
        """Rows that take a branch, those of the tree first."""
        rows = [(entry.kept is not None, row) for row, entry in enumerate(self.entries) if entry is not None]
        return [row for _, row in sorted(rows)]

    @property
    def are_of_the_tree(self) -> bool:
        """Does every row take a branch of the latest tree?"""
        return all(entry is not None and entry.kept is None for entry in self.entries)

    @property
    def guessed(self) -> list[int]:
        """Rows that are answered without the draft."""
        return [row for row, origin in enumerate(self.origins) if origin == "fast" and self.entries[row] is None]

    @property
    def drafted(self) -> list[int]:
        """Rows that the draft answers now."""
        return [row for row, origin in enumerate(self.origins) if origin != "fast" and self.entries[row] is None]


def _fitting(entry: Entry | None, k: int) -> Entry | None:
    """The entry, if it has as many draft tokens as this round wants: one that was kept may be of a shorter tree."""
    short = entry is not None and entry.kept is not None and entry.kept.tokens.shape[1] < k
    return None if short else entry
