"""Peak memory of a run beside what Python and torch themselves take: `python -m ssd_lab.bench.memory`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_lab.errors import SsdLabError

if TYPE_CHECKING:
    from ssd_lab.models.loader import LoadedModel

LIMIT_S = 600.0
# this module, found where it was found here and not in the current folder: arguments are that place, and the request
_PROGRAM = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module('ssd_lab.bench.memory', run_name='__main__', alter_sys=True)"
)


@dataclass(frozen=True)
class MemoryUse:
    """Peaks of one run's processes. The draft's process is None where the draft lives in the target's.

    base_bytes: Python and torch after a first product. kv_bytes: the KV blocks in the target's process, with those of
    the draft if it works there; in a process of its own they are not told apart. The draft's weights are where it
    works.
    """

    strategy: str
    base_bytes: int
    target_peak_bytes: int
    draft_peak_bytes: int | None
    target_weights_bytes: int
    draft_weights_bytes: int
    kv_bytes: int

    @property
    def beside_bytes(self) -> int:
        """The larger of the two processes' peaks over Python, torch, and the weights and KV blocks in it."""
        weights = self.target_weights_bytes + (self.draft_weights_bytes if self.draft_peak_bytes is None else 0)
        beside = [self.target_peak_bytes - self.base_bytes - weights - self.kv_bytes]
        if self.draft_peak_bytes is not None:
            beside.append(self.draft_peak_bytes - self.base_bytes - self.draft_weights_bytes)
        return max(beside)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**asdict(self), "beside_bytes": self.beside_bytes}


def measure_memory(strategy: str, *, max_tokens: int = 128, **fields: Any) -> MemoryUse:
    """Run the canned prompts in a process of their own and read its peaks.

    fields: the strategy's knobs and the fields of EngineConfig. Raises SsdLabError with the child's last line if it
    fails (Linux alone says what is asked) or takes over ten minutes.
    """
    request = json.dumps({"strategy": strategy, "max_tokens": max_tokens, "fields": fields})
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM, str(Path(__file__).parents[2]), request],
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


def _peak_bytes(process: str = "self") -> int:
    """Peak of a process since it was started (what getrusage tells goes back to the process it was forked from)."""
    status = Path(f"/proc/{process}/status")
    try:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError, ValueError) as error:
        raise SsdLabError(f"peaks of memory are read from {status}, which Linux alone has ({error})") from error


def _children() -> list[str]:
    """Process ids of this process's children."""
    return [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def _weights_bytes(model: LoadedModel) -> int:
    return model.config.num_parameters * model.dtype.itemsize


def _measure_here(strategy: str, max_tokens: int, fields: dict[str, Any]) -> MemoryUse:
    """What the child does: nothing of ours is imported before the base is read, apart from the error classes."""
    import torch

    torch.nn.functional.linear(torch.ones(8, 64, dtype=torch.bfloat16), torch.ones(64, 64, dtype=torch.bfloat16))
    base = _peak_bytes()

    from ssd_lab import demo
    from ssd_lab.config import SamplingParams
    from ssd_lab.llm import LLM
    from ssd_lab.models.kv_cache import PagedKVCache

    with LLM(strategy=strategy, progress=False, **fields) as llm:
        llm.generate(demo.canned_prompts(), SamplingParams(max_tokens=max_tokens, ignore_eos=True))
        target, draft, kv = llm.target, llm.draft, llm.kv_bytes
        children = [_peak_bytes(child) for child in _children()]
    if draft is not None and not children:  # it holds as many tokens as the target
        per_token = [PagedKVCache.bytes_per_block(each.config, 1, each.dtype) for each in (target, draft)]
        kv += kv // per_token[0] * per_token[1]
    return MemoryUse(
        strategy=strategy,
        base_bytes=base,
        target_peak_bytes=_peak_bytes(),
        draft_peak_bytes=max(children, default=None),
        target_weights_bytes=_weights_bytes(target),
        draft_weights_bytes=0 if draft is None else _weights_bytes(draft),
        kv_bytes=kv,
    )


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    used = _measure_here(wanted["strategy"], wanted["max_tokens"], wanted["fields"])
    sys.stdout.write(json.dumps(asdict(used)))
