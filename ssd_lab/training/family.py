"""Make the bundled family: `python -m ssd_lab.training.family --work DIR --teacher FILE.gguf --prompts FILE.jsonl`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from ssd_lab.training.config import FamilyConfig, replace_nested
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.distill import train_drafts
from ssd_lab.training.pretrain import train_target
from ssd_lab.training.stages import STAGES, Context, completed

logger = logging.getLogger(__name__)


def resolve_device(device: str) -> str:
    """`auto` is the GPU where there is one."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def run_stages(ctx: Context, stages: Sequence[str]) -> None:
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


def warm_up(config: FamilyConfig, device: str) -> None:
    """Fill the compiler's disk cache with the training functions, on random tokens, while the GPU does other work."""
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, config.target.vocab_size, 200, dtype=np.uint16) for _ in range(2_000)]
    corpus = Corpus.build([d[:50] for d in documents], [d[50:] for d in documents])
    target = train_target(corpus, config.target, replace(config.target_training, max_steps=2), device=device)
    target = target.to(torch.bfloat16)
    target.reset_rope(device)
    target.compute_dtype = None
    train_drafts(target, corpus, config.drafts, replace(config.draft_training, max_steps=2), device=device)


def with_budget(config: FamilyConfig, budget_s: float) -> FamilyConfig:
    """Share a total time out among the stages as in the bundled run."""
    share = budget_s / 1_200.0
    return replace(
        config,
        teacher_budget_s=330 * share,
        self_budget_s=75 * share,
        target_training=replace(config.target_training, budget_s=470 * share),
        draft_training=replace(config.draft_training, budget_s=300 * share),
    )


def train_family(
    output_dir: Path,
    teacher_path: Path,
    prompts_path: Path,
    *,
    seed: int = 0,
    budget: float | None = None,
    device: str = "auto",
    progress: bool = True,
    config: FamilyConfig | None = None,
    test_paths: Sequence[Path] = (),
) -> Path:
    """Make a target and a draft from a teacher and prompts; resumes what an earlier call left in `output_dir`/work.

    `budget` is the total time in seconds (default: the bundled run's 20 minutes); `test_paths` are prompt files that
    are kept out of the training prompts and that the pair is measured on. Returns the folder with target/ and draft/.
    """
    config = replace(config or FamilyConfig(), seed=seed)
    if budget is not None:
        config = with_budget(config, budget)
    ctx = Context(
        config=config,
        work=Path(output_dir) / "work",
        teacher_path=Path(teacher_path),
        prompts_path=Path(prompts_path),
        test_paths=tuple(Path(p) for p in test_paths),
        device=resolve_device(device),
        progress=progress,
    )
    run_stages(ctx, list(STAGES))
    for role in ("target", "draft"):
        shutil.copytree(ctx.work / "family" / role, Path(output_dir) / role, dirs_exist_ok=True)
    return Path(output_dir)


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
    parser.add_argument("--stage", action="append", choices=[*STAGES, "warmup"], help="default: all")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    config = FamilyConfig.from_json(arguments.config) if arguments.config else FamilyConfig()
    config = replace_nested(config, json.loads(arguments.set))
    device = resolve_device(config.device)
    if arguments.stage == ["warmup"]:
        warm_up(config, device)
        return
    ctx = Context(
        config,
        arguments.work,
        arguments.teacher,
        arguments.prompts,
        tuple(arguments.tests),
        device,
        progress=not arguments.quiet,
    )
    run_stages(ctx, arguments.stage or list(STAGES))


if __name__ == "__main__":
    main()
