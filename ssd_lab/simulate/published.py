"""Machines whose times are published, by name.

`published-4xh100+1`: Llama-3.1-70B on four H100, Llama-3.2-1B drafting on a fifth (arXiv 2603.03251 and its code's own
times).

Used: 54.7 tokens/s autoregressive, hence 18.28 ms a step; verification 11.45 ms; a draft (tree) step 2.54 ms. These
give the published synchronous and asynchronous speeds at once: with k = 6 (its code's default) a synchronous round
lasts 11.45 + 6 * 2.54 = 26.69 ms and an asynchronous one, 85 % hits, 0.85 * 15.24 + 0.15 * 26.69 = 16.96 ms; the ratio
1.574 is the published 255.8 / 161.8 = 1.581 to half a percent, and both then mean 4.3 tokens a round.

Inconsistent: an autoregressive step is a verification of one row, yet 18.28 ms is 1.6 times the 11.45 ms of k + 1 rows.
Either the autoregressive baseline was slow (other engines reach about 66 tokens/s there, 15.2 ms), or the verification
was timed without something every step pays. So the published speed-up of 4.7 exceeds 4.3 tokens a round, which no
verification as slow as a step could give; `Simulation.conservative_speedup` divides by a step that costs a verification
instead.

Fitted: 0.0626 ms for each further row, from the synchronous speeds per sequence at batch 1 to 16 (162 to 130 tokens/s,
read off a chart), all of it charged to the target. Not published: link and host times, here zero (they are inside the
others).
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ssd_lab.errors import ConfigError
from ssd_lab.simulate.hardware import HardwareProfile
from ssd_lab.simulate.time_models import AffineTime

_PER_ROW_S = 0.0626e-3

PUBLISHED_70B = HardwareProfile(
    name="published-4xh100+1",
    source="Llama-3.1-70B on 4 H100, Llama-3.2-1B on 1 H100: arXiv 2603.03251, and the step times of its code",
    caveats=(
        (
            "the published autoregressive step (18.28 ms) is slower than the published verification of 7 rows "
            "(11.45 ms): speed-ups over it exceed tokens per round; conservative_speedup does not use it"
        ),
        "batch times are fitted to speeds read off a chart",
    ),
    target_device="4 H100",
    draft_device="1 H100",
    verify_s=AffineTime(base_s=11.45e-3 - 7 * _PER_ROW_S, per_row_s=_PER_ROW_S),
    draft_step_s=AffineTime(base_s=2.54e-3),
    draft_tree_step_s=AffineTime(base_s=2.54e-3),
    autoregressive_step_s=AffineTime(base_s=1 / 54.7 - _PER_ROW_S, per_row_s=_PER_ROW_S),
)

PUBLISHED_PROFILES = {PUBLISHED_70B.name: PUBLISHED_70B}


def find_profile(hardware: str | PathLike[str] | HardwareProfile) -> HardwareProfile:
    """The profile itself, a published one by name, or one saved as `.json`; raises ConfigError for anything else."""
    if isinstance(hardware, HardwareProfile):
        return hardware
    if str(hardware) in PUBLISHED_PROFILES:
        return PUBLISHED_PROFILES[str(hardware)]
    if Path(hardware).suffix == ".json":
        return HardwareProfile.load(hardware)
    raise ConfigError(
        f"unknown hardware {str(hardware)!r}; known: {', '.join(PUBLISHED_PROFILES)}, "
        "or a HardwareProfile, or the path of one saved as .json"
    )
