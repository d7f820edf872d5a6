"""Prompts to their first token, whole runs and a late prompt, transformers beside: `python -m studies.prompt_times`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ssd_lab.assembly.build import resolve_device
from ssd_lab.cli.profile import sources_of
from ssd_lab.common.device_guard import current
from ssd_lab.models.loader import load_model, resolve_dtype
from studies.prompt_times.measure import REPEATS, markdown, measure_prompts, shapes
from studies.prompt_times.peer import peer_times


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main(arguments: Sequence[str]) -> str:
    """Measure; returns the report."""
    parser = argparse.ArgumentParser(prog="python -m studies.prompt_times", description=__doc__)
    for name in ("target", "draft", "geometry", "draft-geometry"):
        parser.add_argument(f"--{name}", help="as of `ssd-lab profile`")
    parser.add_argument("--k", type=int, default=7, help="draft tokens a round")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs")
    parser.add_argument("--no-peer", action="store_true", help="without transformers beside ours")
    parser.add_argument("--out", type=Path, help="folder for prompts.json and prompts.md")
    options = parser.parse_args(arguments)
    sources = sources_of(options.target, options.draft, options.geometry, options.draft_geometry)
    place = str(resolve_device(options.device))
    with current(place):
        kind, where, peers = resolve_dtype(options.dtype, place), torch.device(place), {}
        if not options.no_peer:
            peers = peer_times(sources[0], dtype=kind, device=where, shapes=shapes(), repeats=REPEATS)
        target, draft = (load_model(source, dtype=options.dtype, device=place, progress=False) for source in sources)
        measured = measure_prompts(
            target, draft, k=options.k, peers=peers, on_line=_say, device=place, dtype=options.dtype,
            eager=options.eager,
        )  # fmt: skip
    text = markdown(measured, command=shlex.join(["python", "-m", "studies.prompt_times", *arguments]))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "prompts.json").write_text(json.dumps(measured.as_dict(), indent=1) + "\n", encoding="utf-8")
        (options.out / "prompts.md").write_text(text, encoding="utf-8")
    return text


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
