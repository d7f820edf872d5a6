"""Peak memory of strategies, beside what Python and torch themselves take: `python -m studies.costs.memory`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_lab.common.parsing import parse_strategy
from ssd_lab.display.tables import Table
from ssd_lab.errors import SsdLabError

if TYPE_CHECKING:
    from ssd_lab.models.loader import LoadedModel

LIMIT_S = 600.0
REQUEST = "--request"  # what the child is told
MEASURED = ("autoregressive", "sync_chain", "async_tree")
TITLES = ("strategy", "Python and torch", "target's process", "draft's process", "beside")


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
            [sys.executable, "-m", "studies.costs.memory", REQUEST, request],
            cwd=Path(__file__).parents[2],
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
    """What the child does: before the base is read nothing of ours is imported but what handles words."""
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


def table(used: Sequence[MemoryUse]) -> Table:
    """Megabytes; beside: over Python, torch, the weights and KV blocks."""
    rows = [
        (
            each.strategy,
            *map(_megabytes, (each.base_bytes, each.target_peak_bytes, each.draft_peak_bytes, each.beside_bytes)),
        )
        for each in used
    ]
    return Table(TITLES, rows, lead="Peak memory, MB; beside: over Python, torch, the weights and KV blocks")


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f}"


def main(arguments: Sequence[str]) -> str:
    """Measure each strategy (`async_tree k=4`), the canned prompts in a process of its own; returns the table."""
    parser = argparse.ArgumentParser(prog="python -m studies.costs.memory", description=__doc__)
    parser.add_argument("strategies", nargs="*", default=MEASURED)
    parser.add_argument("--max-tokens", type=int, default=128)
    options = parser.parse_args(arguments)
    wanted = map(parse_strategy, options.strategies)
    return table([measure_memory(max_tokens=options.max_tokens, **each) for each in wanted]).to_text()


if __name__ == "__main__":
    if sys.argv[1:2] == [REQUEST]:
        asked = json.loads(sys.argv[2])
        sys.stdout.write(json.dumps(asdict(_measure_here(asked["strategy"], asked["max_tokens"], asked["fields"]))))
    else:
        sys.stdout.write(main(sys.argv[1:]) + "\n")
