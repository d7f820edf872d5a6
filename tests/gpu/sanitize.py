"""compute-sanitizer over one short run of each strategy: python tests/gpu/sanitize.py [--tools ...] [--strategies ...].

memcheck runs each strategy twice: eagerly with torch's caching allocator off, where each tensor is an allocation whose
bounds are known, and with graphs. initcheck runs it in the first way, since memory that a cache hands out again counts
as written. memcheck looks at all kernels, since libraries read where we tell them to. initcheck has to see the writes
of all kernels, and counts what it finds in those of this package: others read padding that nobody wrote. racecheck
looks at those of this package only: others hand shared memory on in ways that it takes for hazards.

Under initcheck and racecheck this package's kernels make all products. cuBLAS's for compute capability 9.0 write by the
copy engine, which initcheck does not see, so that all that reads their results would count; and where racecheck leaves
them out, it fails with an illegal memory access of its own ("failed to handle a hardware exception").

Each line of the output is one run; a tool or a strategy can be chosen, so that it can be done in pieces.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from gpu_strategies import STRATEGIES

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TOOLS = ("memcheck", "initcheck", "racecheck")
PLACES = ("/usr/local/cuda/bin", *(f"{path}/nvidia/cu13/bin" for path in sys.path))
FOUND = re.compile(r"^=+ (?:Error: |Warning: )?(Invalid|Uninitialized|Misaligned|Potential|Race reported|Host API)")
AT = re.compile(r"^=+ .*?(?:\bat (?:0x[0-9a-f]+ in )?|Race reported between \w+ access at )(?:void )?([\w:]+)")
LIMIT_S = 500.0


def kernels() -> set[str]:
    """Names of this package's kernels: functions of Triton that are launched over a grid."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "ssd_lab" / "kernels").rglob("*.py")]
    compiled = {name for source in sources for name in re.findall(r"@triton\.jit(?:\([^@]*?\))?\s+def (\w+)", source)}
    launched = {name for source in sources for name in re.findall(r"\b(\w+)\[[^\[\]\n]*\]\(", source)}
    return compiled & launched


def executable() -> str | None:
    """compute-sanitizer, of the CUDA toolkit or of the package nvidia-cuda-sanitizer-api."""
    places = os.pathsep.join([os.environ.get("PATH", ""), f"{os.environ.get('CUDA_HOME', '')}/bin", *PLACES])
    return shutil.which("compute-sanitizer", path=places)


def command(sanitizer: str, tool: str, strategy: str, executor: str) -> list[str]:
    """What is run."""
    options = ["--tool", tool, "--print-limit", "400", "--report-api-errors", "no", "--target-processes", "all"]
    if tool == "racecheck":
        options += [option for name in sorted(kernels()) for option in ("--kernel-name", f"kns={name}")]
    products = [] if tool == "memcheck" else ["own-products"]
    return [sanitizer, *options, sys.executable, str(HERE / "one_short_run.py"), strategy, executor, *products]


def found_in(output: str) -> Counter[str]:
    """How often a tool found something, by kernel (`?`: it named none)."""
    counts: Counter[str] = Counter()
    lines = output.splitlines()
    for index, line in enumerate(lines):
        if FOUND.match(line):
            names = (AT.match(near) for near in lines[index : index + 3])
            counts[next((name[1] for name in names if name is not None), "?")] += 1
    return counts


def run(sanitizer: str, tool: str, strategy: str, executor: str) -> bool:
    """One run under one tool; was nothing wrong?"""
    caching = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if executor == "eager" and tool != "racecheck" else {}
    paths = [str(ROOT), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **caching, "PYTHONPATH": os.pathsep.join(paths)}
    start_s = time.perf_counter()
    try:
        done = subprocess.run(
            command(sanitizer, tool, strategy, executor),
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        sys.stdout.write(f"{tool:10} {strategy:20} {executor:7} NOT DONE after {LIMIT_S:g} s\n")
        return False
    counts = found_in(done.stdout)
    counted = {name: n for name, n in counts.items() if tool == "memcheck" or name in kernels() or name == "?"}
    fine = done.returncode == 0 and not counted and "SUMMARY" in done.stdout
    others = {name: n for name, n in counts.items() if name not in counted}
    told = f"; in libraries, not counted: {others}" if others else ""
    verdict = "ok" if fine else f"WRONG (exit code {done.returncode}): {counted}"
    took = f"{time.perf_counter() - start_s:.0f} s"
    sys.stdout.write(f"{tool:10} {strategy:20} {executor:7} {took:>6} {verdict}{told}\n")
    if not fine:
        sys.stdout.write("\n".join(done.stdout.splitlines()[-60:]) + "\n")
    sys.stdout.flush()
    return fine


def main() -> None:
    """Every tool over every strategy, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", default=",".join(TOOLS), help="comma-separated")
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="comma-separated")
    given = parser.parse_args()
    sanitizer = executable()
    if sanitizer is None:
        sys.stdout.write(
            "SKIPPED: no compute-sanitizer on the PATH, in CUDA_HOME or among the packages: install the CUDA toolkit, "
            "or pip install nvidia-cuda-sanitizer-api\n"
        )
        return
    runs = [
        (tool, strategy, executor)
        for tool in given.tools.split(",")
        for strategy in given.strategies.split(",")
        for executor in (("eager", "graphs") if tool == "memcheck" else ("eager",))
    ]
    results = [run(sanitizer, *one) for one in runs]
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
