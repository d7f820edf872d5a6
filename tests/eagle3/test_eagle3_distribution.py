"""At temperature > 0 every path of the strategy follows the target's distribution, filters included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from eagle3_cases import MODES, PROMPTS

from ssd_lab.check import Extent, check
from ssd_lab.check.checking import CheckReport
from ssd_lab.models.draft_vocabulary import DraftVocabulary


def run_check(counting: Any, mode: str, *, draws: int = 600, temperature: float = 1.0) -> CheckReport:
    extent = Extent(num_prompts=len(PROMPTS), batches=(), temperatures=(temperature,), draws=draws)
    strategy = {"strategy": "eagle3", "head": counting.part, **MODES[mode]}
    return check(
        [strategy], prompts=PROMPTS, target=counting.target, draft=None, dtype="float32", extent=extent,
        progress=False, draft_link="inline", threads=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "temperature"),
    [("sync", 0.7), ("sync", 1.0), ("async jit", 0.7), ("async jit", 1.0), ("async fast", 1.0)],
)
def test_no_path_is_rejected(counting: Any, mode: str, temperature: float) -> None:
    report = run_check(counting, mode, temperature=temperature)
    paths = {"sync": {"draft"}, "async jit": {"hit", "jit"}, "async fast": {"hit", "fast", "jit"}}[mode]
    assert {path.path for path in report.paths} == paths | {"none"}
    assert report.rejected == []
    assert all(path.impossible == 0 for path in report.paths)
    assert report.same


def test_probabilities_given_to_the_wrong_tokens_are_rejected(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: probabilities stay at the draft's ids instead of going to the target's."""

    def in_place(self: DraftVocabulary, probs: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(probs, (0, self.target_size - self.size))

    monkeypatch.setattr(DraftVocabulary, "scatter_probs", in_place)
    assert [path.path for path in run_check(counting, "sync", draws=2000).rejected] == ["draft"]
