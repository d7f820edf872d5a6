#!/usr/bin/env bash
# Every test that needs a GPU, and compute-sanitizer over one short run of each strategy, on this machine:
#   scripts/gpu_tests.sh [arguments of pytest]
# In pieces: SANITIZE=no scripts/gpu_tests.sh -k NAME, and for the sanitizer alone
#   python tests/gpu/sanitize.py --tools memcheck --strategies async_tree,eagle3
# PYTHON=<path>   the interpreter (default: .venv/bin/python if there is one, else python3)
# WORKERS=<n>     processes for the tests, if pytest-xdist is there (default 1: each holds its own models on the GPU);
#                 those that measure the whole memory of the GPU come behind the others, one by one
# Unlike in the whole suite, where such tests are skipped with a reason, a missing GPU is an error here.
set -eu
cd "$(dirname "$0")/.."

if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi

"$PYTHON" - <<'CHECK'
import sys

import torch

from ssd_lab.errors import ConfigError
from ssd_lab.assembly.cuda_check import check_cuda

try:
    check_cuda(torch.device("cuda"))
except ConfigError as error:
    sys.exit(f"the GPU tests cannot run here: {error}")
device = torch.cuda.get_device_properties(0)
print(f"{device.name}, {device.total_memory / 2**30:.0f} GiB, torch {torch.__version__}, CUDA {torch.version.cuda}")
CHECK

none=5 # pytest's status where it found no test
code=$none
run() { # the tests of this marker expression, with these arguments of pytest
  marks=$1 && shift
  status=0
  "$PYTHON" -m pytest -m "$marks" -ra "$@" tests || status=$?
  if [ $code -eq $none ] || { [ $status -ne 0 ] && [ $status -ne $none ]; }; then code=$status; fi
}

if [ "${WORKERS:-1}" -gt 1 ]; then
  if "$PYTHON" -c "import xdist" 2>/dev/null; then
    run "gpu and not alone" -n "$WORKERS" --dist worksteal -p no:benchmark "$@"
    run "gpu and alone" "$@"
  else
    echo "pytest-xdist is not installed: the tests run in one process" >&2
    run gpu "$@"
  fi
else
  run gpu "$@"
fi
if [ "${SANITIZE:-yes}" = yes ]; then
  "$PYTHON" tests/gpu/sanitize.py || code=$?
fi
exit $code
