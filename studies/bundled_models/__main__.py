"""Make the bundled pair: `python -m studies.bundled_models --work DIR --teacher FILE.gguf --prompts FILE.jsonl`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ssd_lab.assembly.build import resolve_device
from studies.bundled_models.config import FamilyConfig, replace_nested
from studies.bundled_models.stages import STAGES, FamilyRun, completed

logger = logging.getLogger(__name__)


def run_stages(ctx: FamilyRun, stages: Sequence[str]) -> None:
    """Run stages in order, leaving out those whose output exists; times go to `times.json`."""
    ctx.work.mkdir(parents=True, exist_ok=True)
    (ctx.work / "config.json").write_text(json.dumps(asdict(ctx.config), indent=2))
    times_path = ctx.work / "times.json"
    times: dict[str, float] = json.loads(times_path.read_text()) if times_path.exists() else {}
    for name in stages:
        if name in completed(ctx):
            logger.info("stage %s: done before", name)
            continue
        started_s = time.monotonic()
        logger.info("stage %s", name)
        STAGES[name][0](ctx)
        times[name] = time.monotonic() - started_s
        times_path.write_text(json.dumps(times))
        logger.info("stage %s: %.1f s", name, times[name])
        if ctx.device.startswith("cuda"):
            torch.cuda.empty_cache()


def main() -> None:
    """Run all stages, or the named ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="JSON file with the fields of FamilyConfig to change")
    parser.add_argument("--set", default="{}", help="the same as JSON text, applied after the file")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True, help="GGUF file of a Llama-architecture instruct model")
    parser.add_argument("--prompts", type=Path, required=True, help="JSON lines with dataset, prompt")
    parser.add_argument(
        "--tests", type=Path, nargs="*", default=[], help="prompt files to keep apart and to measure on"
    )
    parser.add_argument("--stage", action="append", choices=[*STAGES], help="default: all")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    config = FamilyConfig.from_json(arguments.config) if arguments.config else FamilyConfig()
    config = replace_nested(config, json.loads(arguments.set))
    ctx = FamilyRun(
        config,
        arguments.work,
        arguments.teacher,
        arguments.prompts,
        tuple(arguments.tests),
        str(resolve_device(config.device)),
        progress=not arguments.quiet,
    )
    run_stages(ctx, arguments.stage or list(STAGES))


if __name__ == "__main__":
    main()
