"""Record the run that the home page shows: `python docs/traces/record.py` writes async_tree.jsonl.gz."""

from __future__ import annotations

from pathlib import Path

import ssd_lab

PROMPTS = [
    "Why is teamwork important?",
    "A baker puts 6 muffins in each box and fills 8 boxes. How many muffins are there in total?",
]


def main() -> None:
    """The bundled pair, one request at a time, on one core; sampled, so that coins are tossed."""
    options = {"max_tokens": 80, "max_batch": 1, "threads": 1, "progress": False, "record_details": 12}
    run = ssd_lab.run(PROMPTS, strategy="async_tree", k=4, f=2, temperature=0.7, seed=1, **options)
    run.trace.meta |= {"target": "bundled target", "draft": "bundled draft"}  # not the paths of the recording machine
    run.trace.save(Path(__file__).with_name("async_tree.jsonl.gz"))


if __name__ == "__main__":
    main()
