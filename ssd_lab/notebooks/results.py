"""Results that come with the documentation: what `ssd-lab bench --json` printed, in docs/results/runs, and traces."""

from __future__ import annotations

import json
from pathlib import Path

from ssd_lab.bench.result import BenchResult
from ssd_lab.errors import ConfigError
from ssd_lab.simulate import PUBLISHED_70B, HardwareProfile
from ssd_lab.trace import Trace, load_trace

_INSTALLED = Path(__file__).parent / "files" / "runs"  # written there when a wheel is built
_CHECKOUT = Path(__file__).parents[2] / "docs" / "results" / "runs"
_H100 = _CHECKOUT.parent / "h100" / "hardware.json"
_TWO_GPUS = _CHECKOUT.parents[1] / "traces" / "two_gpus"


def committed(folder: str | Path | None = None) -> dict[str, BenchResult]:
    """Results by name, sorted. folder: of `*.json` files instead of those that come along, each one run or a list.

    A run without a name has its file's, with its number in a list. Raises ConfigError for a folder that is not there
    and for a file that holds no results of this version.
    """
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"{folder} is no folder: name one that holds the output of `ssd-lab bench --json`")
    own = next((place for place in (_INSTALLED, _CHECKOUT) if place.is_dir()), None)
    place = own if folder is None else Path(folder)
    return {} if place is None else dict(sorted(pair for path in place.glob("*.json") for pair in _results(path)))


def machines() -> dict[str, HardwareProfile]:
    """Machines that were measured or published: one H100 for both models, two (assumed from the one), and four with a
    fifth for the draft. Raises ConfigError where an installation lacks the measured one.
    """
    place = next((path for path in (_INSTALLED.parent / "h100.json", _H100) if path.is_file()), _H100)
    one = HardwareProfile.load(place)
    return {
        "one H100, 8B and 1B": one,
        "two H100 (assumed), 8B and 1B": one.with_draft_gpus(1),
        "4 + 1 H100 (published), 70B and 1B": PUBLISHED_70B,
    }


def two_gpus() -> dict[str, Trace]:
    """One prompt on two H200, 8B and 1B: drafted for in turn on one of them, and beside the target on the other. Raises
    ConfigError where an installation lacks them.
    """
    folder = next((path for path in (_INSTALLED.parent / "two_gpus", _TWO_GPUS) if path.is_dir()), _TWO_GPUS)
    traces = [load_trace(path) for path in sorted(folder.glob("*.jsonl.gz"))]
    if len(traces) != 2:
        raise ConfigError(f"{folder} lacks the recorded runs: install ssd_lab again, or use a whole checkout")
    return dict(zip(("synchronous", "asynchronous"), traces, strict=True))


def _results(path: Path) -> list[tuple[str, BenchResult]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        runs = data if isinstance(data, list) else [data]
        named = [run.get("name") or path.stem + (f"-{i}" if len(runs) > 1 else "") for i, run in enumerate(runs, 1)]
        return [(name, BenchResult.from_dict(run)) for name, run in zip(named, runs, strict=True)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} holds no results: {error!r}; write it with `ssd-lab bench --json`") from error
