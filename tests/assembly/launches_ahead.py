"""Prints which launches of a run's steps were not compiled ahead. On a machine without a GPU: nothing is launched, and
what would be is compared. A program, run by a test: `python launches_ahead.py STRATEGY`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

import ssd_lab.assembly.compile_ahead as compile_ahead
import ssd_lab.models.assemble as assemble
from ssd_lab import demo
from ssd_lab.assembly.memory_reader import HostMemoryReader
from ssd_lab.assembly.planning import MemoryPlanner
from ssd_lab.config import EngineConfig
from ssd_lab.kernels.triton_ops.linear_tuning import LinearTuning
from ssd_lab.kernels.triton_ops.triton_kernels import TritonKernels
from ssd_lab.models.files.weights import TensorReader
from ssd_lab.models.loader import load_model
from ssd_lab.strategies import registry

BACKEND = make_backend(GPUTarget("cuda", 90, 32))
MAX_BATCH = 16
Launches = dict[tuple[str, str], str]  # what the compiler goes by -> the kernel


def recorded(launches: dict[bool, Launches]) -> Any:
    """Takes the place of a launch; by whether it only compiles."""

    binders: dict[str, Any] = {}

    def run(kernel: JITFunction, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        binder = binders.get(kernel.__name__)
        if binder is None:
            binder = binders[kernel.__name__] = create_function_from_signature(kernel.signature, kernel.params, BACKEND)
        _, specialization, options = binder(*arguments, **named)
        launches[warmup][kernel.__name__, f"{specialization} {options}"] = kernel.__name__

    return run


def main(strategy: str) -> None:
    launches: dict[bool, Launches] = {True: {}, False: {}}
    JITFunction.run = recorded(launches)  # type: ignore[method-assign]
    kernels = TritonKernels(pdl=True, linear_tuning=lambda *shape: LinearTuning())
    compile_ahead.is_compiled = lambda work: False  # type: ignore[attr-defined]
    compile_ahead.note_compiled = lambda work: None  # type: ignore[attr-defined]
    for module in (compile_ahead, assemble):
        module.choose_kernels = lambda *given: kernels  # type: ignore[attr-defined]
    cpu = torch.device("cpu")
    config = EngineConfig(max_batch=MAX_BATCH, dtype="bfloat16", kernels="triton", max_model_len=700)
    made = registry.config(strategy, {})
    names = {"target": str(demo.TARGET), "draft": str(demo.DRAFT)}
    planner = MemoryPlanner(names["target"], names["draft"], made, config, cpu, HostMemoryReader())
    with compile_ahead.compiled_ahead(planner) as ahead:
        ahead.wait()
    assert not launches[False], "launched while compiling"
    take = TensorReader.take  # on a GPU a weight is aligned, where a file may have it anywhere
    TensorReader.take = lambda reader, *asked: take(reader, *asked).clone()  # type: ignore[method-assign]
    # kernels that were not launched leave their results as they were: tokens that there are
    torch.empty, torch.empty_like = torch.zeros, torch.zeros_like  # type: ignore[assignment]
    torch.Tensor.new_empty = torch.Tensor.new_zeros  # type: ignore[method-assign, assignment]
    models = {role: load_model(name, dtype="bfloat16", bitwise=False) for role, name in names.items()}
    for run in compile_ahead.usual_runs(planner):
        real = replace(run, device=cpu)
        for role, model in models.items():
            with torch.inference_mode():
                for step in real.steps(role):
                    step(real.runner(model.decoder, torch.bfloat16), real.contexts[-1])
    missing = [name for key, name in launches[False].items() if key not in launches[True]]
    sys.stdout.write(f"launched {len(launches[False])}, not compiled ahead {len(missing)}: {' '.join(missing)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
