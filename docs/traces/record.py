"""Record what the site's pages show: `python docs/traces/record.py` writes the traces of this folder."""

from __future__ import annotations

from pathlib import Path

import ssd_lab

FOLDER = Path(__file__).parent
PROMPT = "Tell me about the sun."  # a clear first sentence, of whole words
SEED = 1
RACE = ("autoregressive", "sync_chain", "async_tree")

TREE = {"kind": "dynamic", "top_k": 3, "depth": 4, "num_nodes": 10}
KNOBS: dict[str, dict[str, object]] = {
    "sync_chain": {"k": 4},
    "async_tree": {"k": 4, "f": 2},
    "sync_tree": {"tree": TREE},
    "eagle3": {"k": 4},
}


def record(name: str, strategy: str, **options: object) -> None:
    """The bundled pair on one core."""
    run = ssd_lab.run(PROMPT, strategy=strategy, threads=1, progress=False, **KNOBS.get(strategy, {}), **options)  # type: ignore[arg-type]
    run.trace.meta |= {"target": "bundled target", "draft": "bundled draft"}  # not the paths of the recording machine
    path = FOLDER / f"{name}.jsonl.gz"
    path.parent.mkdir(exist_ok=True)
    run.trace.save(path)


def main() -> None:
    """The story is sampled, so that coins are tossed; the race is not, so that all write the same text."""
    record("story", "async_tree", max_tokens=24, temperature=0.7, seed=SEED, record_details=12)
    record("tree", "sync_tree", max_tokens=24, temperature=0.7, seed=SEED, record_details=8)
    record("eagle3", "eagle3", max_tokens=24, record_details=8)
    for number, strategy in enumerate(RACE, 1):
        record(f"race/{number}_{strategy}", strategy, max_tokens=64)


if __name__ == "__main__":
    main()
