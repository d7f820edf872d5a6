"""Tries of `tune` on prompts of a few sets, then what it chose beside the best of each family in `bench`.

`python -m studies.tuning tune gsm8k --tries 4 --out DIR` for each set, then `python -m studies.tuning bench gsm8k
--out DIR`, then `python -m studies.tuning table --out DIR`. A try is kept when it is made: a study goes on where it
was. Both see the same prompts in the same chat template, and texts end at their end-of-text token in both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd_lab.bench.config import BUNDLED, BenchConfig
from ssd_lab.bench.data import load_prompts
from ssd_lab.bench.figures import repeat_values
from ssd_lab.bench.inputs import SYSTEM_MESSAGE
from ssd_lab.bench.measure import run_in_turns
from ssd_lab.bench.result import BenchResult
from ssd_lab.common.statistics import ratio
from ssd_lab.display.tables import Table
from ssd_lab.tune.candidates import Candidate
from ssd_lab.tune.tuner import tune

SPEED = "decode_tokens_per_second"


def one_try(texts: Sequence[str], budget_s: float, max_tokens: int) -> dict[str, Any]:
    """What `tune` said: the candidates that it ran, the fastest first, and which of them it could not tell apart."""
    chats = [[{"role": "system", "content": SYSTEM_MESSAGE}, {"role": "user", "content": text}] for text in texts]
    found = tune(chats, budget_s=budget_s, max_tokens=max_tokens, progress=False)
    ran = [one for one in found.ranking if one.measured_tokens_per_second is not None]
    return {
        "ran": [
            {"label": one.candidate.label, "strategy": one.candidate.strategy, "fields": one.candidate.fields}
            for one in ran
        ],
        "within_noise": found.within_noise,
        "seconds": sum(found.seconds.values()),
    }


def contenders(tries: Sequence[dict[str, Any]]) -> list[Candidate]:
    """Every winner, and the first of each family that any try ran."""
    found: dict[str, Candidate] = {}
    families: set[str] = set()
    for one in tries:
        for place, ran in enumerate(one["ran"]):
            if place == 0 or ran["strategy"] not in families:
                families.add(ran["strategy"])
                found.setdefault(ran["label"], Candidate(ran["strategy"], ran["fields"]))
    return list(found.values())


def config(candidate: Candidate, dataset: str, options: argparse.Namespace) -> BenchConfig:
    """Of the same requests in `bench`."""
    return BenchConfig(
        strategy=candidate.strategy, strategy_fields=candidate.fields, target=BUNDLED, draft=BUNDLED,
        datasets=(dataset,), num_sequences=options.prompts, input_len=None, output_len=options.max_tokens,
        ignore_eos=False, chat=True, repeats=options.repeats, max_model_len=None,
    )  # fmt: skip


def judged(results: dict[str, BenchResult], dataset: str) -> dict[str, Any]:
    """Mean speeds, and each one's over the best one's, with the interval that `bench compare` gives."""
    speeds = {label: _speeds(result, dataset) for label, result in results.items()}
    best = max(speeds, key=lambda label: sum(speeds[label]))
    over = {label: ratio(own, speeds[best]) for label, own in speeds.items()}
    return {
        "best": best,
        "speeds": {label: sum(own) / len(own) for label, own in speeds.items()},
        "over_best": {label: (each.mean, each.low, each.high) for label, each in over.items()},
        "within_noise": [label for label, each in over.items() if each.high is not None and each.high >= 1],
    }


def _speeds(result: BenchResult, dataset: str) -> list[float]:
    found = result.datasets[dataset]
    return repeat_values(found.repeats, SPEED, found.num_gpus)


def table(folder: Path) -> Table:
    """One row a try: what was chosen, what `bench` says of it."""
    rows = []
    for file in sorted(folder.glob("*.bench.json")):
        bench = json.loads(file.read_text(encoding="utf-8"))
        name = file.name.removesuffix(".bench.json")
        for one in _tries(folder, name):
            winner = one["ran"][0]["label"]
            if winner not in bench["over_best"]:  # tried after that bench
                rows.append((name, winner, bench["best"], "-", "bench again"))
                continue
            mean, low, high = bench["over_best"][winner]
            inside = "yes" if winner in bench["within_noise"] else "no"
            rows.append((name, winner, bench["best"], f"{mean:.2f} ({low:.2f} to {high:.2f})", inside))
    return Table(("set", "tune's winner", "bench's best", "winner over best in bench", "within noise"), rows)


def _tries(folder: Path, dataset: str) -> list[dict[str, Any]]:
    file = folder / f"{dataset}.tune.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def main(arguments: Sequence[str] | None = None) -> str:
    """Do one part; returns what is to be shown."""
    parser = argparse.ArgumentParser(prog="python -m studies.tuning", description=__doc__)
    parser.add_argument("part", choices=("tune", "bench", "table"))
    parser.add_argument("dataset", nargs="?", default="gsm8k")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tries", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--budget-s", type=float, default=30.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part == "table":
        return table(options.out).to_markdown()
    if options.part == "tune":
        texts = [prompt.text for prompt in load_prompts(options.dataset, options.prompts)]
        for _ in range(options.tries - len(_tries(options.out, options.dataset))):
            found = one_try(texts, options.budget_s, options.max_tokens)
            with (options.out / f"{options.dataset}.tune.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
        return f"{options.dataset}: {len(_tries(options.out, options.dataset))} tries"
    chosen = contenders(_tries(options.out, options.dataset))
    configs = [config(one, options.dataset, options) for one in chosen]
    results = dict(zip([one.label for one in chosen], run_in_turns(configs, progress=False), strict=True))
    found = judged(results, options.dataset)
    (options.out / f"{options.dataset}.bench.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return f"{options.dataset}: best {found['best']}; within noise {', '.join(found['within_noise'])}"


if __name__ == "__main__":
    import sys

    sys.stdout.write(main() + "\n")
