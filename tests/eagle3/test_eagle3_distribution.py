"""At temperature > 0 every path of the strategy follows the target's distribution, filters included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from eagle3_cases import MODES, PROMPTS
from power import POWER, found_wrong, power_of, smallest_p

from ssd_lab.check import Extent, check
from ssd_lab.check.checking import CheckReport
from ssd_lab.models.eagle3.vocabulary import DraftVocabulary


def run_check(counting: Any, mode: str, *, temperature: float = 1.0, seed: int = 0) -> CheckReport:
    extent = Extent(num_prompts=len(PROMPTS), batches=(), temperatures=(temperature,), draws=400)
    strategy = {"strategy": "eagle3", "head": counting.part, **MODES[mode]}
    return check(
        [strategy], prompts=PROMPTS, target=counting.target, draft=None, dtype="float32", extent=extent,
        progress=False, draft_link="inline", threads=1, seed=seed,
    )  # fmt: skip


@pytest.mark.quick("sync-1.0")
@pytest.mark.grid(full=3)
@pytest.mark.parametrize(
    ("mode", "temperature"),
    [
        pytest.param("sync", 0.7, marks=pytest.mark.full),
        ("sync", 1.0),
        pytest.param("async jit", 0.7, marks=pytest.mark.full),
        ("async jit", 1.0),
        pytest.param("async fast", 1.0, marks=pytest.mark.full),
    ],
)
def test_no_path_is_rejected(counting: Any, mode: str, temperature: float) -> None:
    report = run_check(counting, mode, temperature=temperature)
    paths = {"sync": {"draft"}, "async jit": {"hit", "jit"}, "async fast": {"hit", "fast", "jit"}}[mode]
    assert {path.path for path in report.paths} == paths | {"none"}
    assert found_wrong(report) == set()
    assert all(path.impossible == 0 for path in report.paths)


def in_place(self: DraftVocabulary, probs: torch.Tensor) -> torch.Tensor:
    """Planted bug: probabilities stay at the draft's ids instead of going to the target's."""
    return torch.nn.functional.pad(probs, (0, self.target_size - self.size))


def test_probabilities_given_to_the_wrong_tokens_are_rejected(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DraftVocabulary, "scatter_probs", in_place)
    report = run_check(counting, "sync")
    assert found_wrong(report, report.alpha) >= {"draft"}


@pytest.mark.extended
@pytest.mark.full
def test_they_are_rejected_whatever_the_seeds(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power of the test above."""
    monkeypatch.setattr(DraftVocabulary, "scatter_probs", in_place)
    reports = [run_check(counting, "sync", seed=seed) for seed in (1, 2, 3, 4)]
    assert power_of([smallest_p(report, "draft") for report in reports], reports[0].alpha) > POWER
