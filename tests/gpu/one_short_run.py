"""One short run of one strategy, for tools that make a GPU slow: python tests/gpu/one_short_run.py STRATEGY [eager]."""

from __future__ import annotations

import sys

from gpu_strategies import opened

from ssd_lab import SamplingParams

PROMPTS = ["What is 1 + 1?", "one two three one two three one two"]
PARAMS = [
    SamplingParams(max_tokens=8, ignore_eos=True),
    SamplingParams(max_tokens=8, ignore_eos=True, temperature=1.0, top_p=0.9, seed=1),
]


def main(strategy: str, executor: str = "graphs") -> None:
    """Two requests, one greedy and one sampled; details are recorded, so that phases have all their outputs."""
    engine = {"max_batch": 2, "max_model_len": 128, "num_blocks": 64, "bitwise": False, "record_details": 2}
    with opened(strategy, eager=executor == "eager", **engine) as llm:
        result = llm.run(PROMPTS, PARAMS)
    if "missing" in result.trace.meta or [len(output.token_ids) for output in result.outputs] != [8, 8]:
        sys.exit(f"the run of {strategy} went wrong: {result.trace.meta.get('missing')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
