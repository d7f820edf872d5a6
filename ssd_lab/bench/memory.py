"""Peak memory of a run beside what Python and torch themselves take: `python -m ssd_lab.bench.memory`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ssd_lab.errors import SsdLabError

if TYPE_CHECKING:
    from ssd_lab.models.loader import LoadedModel

LIMIT_S = 600.0


@dataclass(frozen=True)
class MemoryUse:
    """Peaks of one run's processes. The draft's process is None where the draft lives in the target's.

    base_bytes: Python and torch after a first product. KV blocks count in the peaks as far as they were touched.
    """

    strategy: str
    base_bytes: int
    target_peak_bytes: int
    draft_peak_bytes: int | None
    target_weights_bytes: int
    draft_weights_bytes: int

    @property
    def beside_bytes(self) -> int:
        """The larger of the two processes' peaks over Python, torch and the weights in it; KV blocks not taken off."""
        in_one = self.draft_peak_bytes is None
        weights = self.target_weights_bytes + (self.draft_weights_bytes if in_one else 0)
        beside = [self.target_peak_bytes - self.base_bytes - weights]
        if self.draft_peak_bytes is not None:
            beside.append(self.draft_peak_bytes - self.base_bytes - self.draft_weights_bytes)
        return max(beside)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**asdict(self), "beside_bytes": self.beside_bytes}


def measure_memory(strategy: str, *, max_tokens: int = 128, **fields: Any) -> MemoryUse:
    """Run the canned prompts in a process of their own and read its peaks.

    fields: the strategy's knobs and the fields of EngineConfig. Raises SsdLabError with the child's last line if it
    fails or takes over ten minutes.
    """
    request = json.dumps({"strategy": strategy, "max_tokens": max_tokens, "fields": fields})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ssd_lab.bench.memory", request],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SsdLabError(
            f"measuring the memory of {strategy!r} took over {LIMIT_S:.0f} s: ask for fewer tokens"
        ) from error
    if done.returncode != 0:
        last_line = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise SsdLabError(f"measuring the memory of {strategy!r} failed: {last_line}")
    return MemoryUse(**json.loads(done.stdout))


def _peak_bytes(who: int) -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit


def _weights_bytes(model: LoadedModel) -> int:
    return model.config.num_parameters * model.dtype.itemsize


def _measure_here(strategy: str, max_tokens: int, fields: dict[str, Any]) -> MemoryUse:
    """What the child does: nothing of ours is imported before the base is read, apart from the error classes."""
    import torch

    torch.nn.functional.linear(torch.ones(8, 64, dtype=torch.bfloat16), torch.ones(64, 64, dtype=torch.bfloat16))
    base = _peak_bytes(resource.RUSAGE_SELF)

    from ssd_lab import demo
    from ssd_lab.api import LLM
    from ssd_lab.config import SamplingParams

    with LLM(strategy=strategy, progress=False, **fields) as llm:
        llm.generate(demo.canned_prompts(), SamplingParams(max_tokens=max_tokens, ignore_eos=True))
        target, draft = llm.target, llm.draft
    children = _peak_bytes(resource.RUSAGE_CHILDREN)
    return MemoryUse(
        strategy=strategy,
        base_bytes=base,
        target_peak_bytes=_peak_bytes(resource.RUSAGE_SELF),
        draft_peak_bytes=children or None,
        target_weights_bytes=_weights_bytes(target),
        draft_weights_bytes=0 if draft is None else _weights_bytes(draft),
    )


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    used = _measure_here(wanted["strategy"], wanted["max_tokens"], wanted["fields"])
    sys.stdout.write(json.dumps(asdict(used)))
