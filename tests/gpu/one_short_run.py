"""One short run of one strategy, for tools that make a GPU slow:
python tests/gpu/one_short_run.py STRATEGY [graphs|eager] [own-products].

own-products: every product is made by this package's kernel for few rows, which the bundled models are too small for
otherwise, and none by a library.
"""

from __future__ import annotations

import sys
from functools import partial

from gpu_strategies import opened

from ssd_lab import SamplingParams
from ssd_lab.kernels.triton_ops import triton_kernels
from ssd_lab.kernels.triton_ops.linear_tuning import LinearTuning

PROMPTS = ["What is 1 + 1?", "one two three one two three one two"]
PARAMS = [
    SamplingParams(max_tokens=8, ignore_eos=True),
    SamplingParams(max_tokens=8, ignore_eos=True, temperature=1.0, top_p=0.9, seed=1),
]


def main(strategy: str, executor: str = "graphs", products: str = "") -> None:
    """Two requests, one greedy and one sampled; details are recorded, so that phases have all their outputs."""
    if products == "own-products":
        tuned = partial(triton_kernels.TritonKernels, linear_tuning=lambda *_: LinearTuning())
        setattr(triton_kernels, "TritonKernels", tuned)  # noqa: B010
    engine = {"max_batch": 2, "max_model_len": 128, "num_blocks": 64, "bitwise": False, "record_details": 2}
    with opened(strategy, eager=executor == "eager", **engine) as llm:
        result = llm.run(PROMPTS, PARAMS)
    if "missing" in result.trace.meta or [len(output.token_ids) for output in result.outputs] != [8, 8]:
        sys.exit(f"the run of {strategy} went wrong: {result.trace.meta.get('missing')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
