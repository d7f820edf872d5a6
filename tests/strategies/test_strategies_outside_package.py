"""A package that is no part of ssd_lab adds a strategy by entry point: it is listed, and it runs exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from power import ALPHA

MODULE = '''
"""A strategy from outside: guesses with a bigram table of the running text."""

from typing import ClassVar

import torch

from ssd_lab import Context, Draft, SequenceStrategy


class Bigrams(SequenceStrategy):
    """Draws two tokens from how often each followed the last one."""

    strategy_name: ClassVar[str] = "bigrams"
    smoothing: float = 0.5

    @property
    def lookahead(self) -> int:
        return 2

    def draft(self, context: Context) -> Draft:
        tokens, probs = list(context.token_ids), []
        for step in range(2):
            counts = torch.full((259,), self.smoothing)
            for one, two in zip(tokens, tokens[1:]):
                if one == tokens[-1]:
                    counts[two] += 1
            probs.append(counts / counts.sum())
            tokens.append(context.draw(probs[-1], step))
        return Draft(tokens[-2:], torch.stack(probs))
'''

PROGRAM = """
import json, sys
import ssd_lab
from ssd_lab.check import Extent, check

report = check(
    [{"strategy": "bigrams", "smoothing": 0.25}], target=sys.argv[1], draft=None, dtype="float32", threads=1,
    extent=Extent(num_prompts=4, max_tokens=12, batches=(4,), temperatures=(1.0,), draws=600), progress=False,
)
run = ssd_lab.run("hello", strategy="bigrams", target=sys.argv[1], max_tokens=20, progress=False)
print(json.dumps({
    "names": list(ssd_lab.strategies()),
    "differing": sum(result.num_differing_tokens for result in report.greedy),
    "p_values": report.adjusted,
    "paths": [path.path for path in report.paths],
    "strategy": run.trace.meta["strategy"],
}))
"""


def install(folder: Path) -> None:
    """The files that an installer would lay down: the module, and its metadata with the entry point."""
    (folder / "outside.py").write_text(textwrap.dedent(MODULE), encoding="utf-8")
    info = folder / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[ssd_lab.strategies]\nbigrams = outside:Bigrams\n", encoding="utf-8")


def in_a_new_interpreter(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run with the folder on the path, as site-packages is."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=110, check=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def said(tiny_pair: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("site")
    install(folder)
    return json.loads(in_a_new_interpreter(folder, PROGRAM, tiny_pair.target).stdout.splitlines()[-1])


def test_it_is_listed_beside_the_built_in_ones(said: dict[str, Any]) -> None:
    assert {"bigrams", "sync_chain", "prompt_lookup"} <= set(said["names"])
    assert said["strategy"] == {"name": "bigrams", "smoothing": 0.5}


def test_it_runs_exactly(said: dict[str, Any]) -> None:
    assert said["differing"] == 0
    assert set(said["paths"]) == {"custom"}
    assert min(said["p_values"]) > ALPHA


@pytest.mark.full
def test_without_its_metadata_it_is_not_there(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "outside-1.0.dist-info" / "entry_points.txt").unlink()
    done = in_a_new_interpreter(tmp_path, "import ssd_lab; print(*ssd_lab.strategies())")
    assert "bigrams" not in done.stdout.split()
