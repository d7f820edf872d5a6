#!/usr/bin/env bash
# Tests of what computes with numbers, as other processors round:   scripts/instruction_sets.sh [arguments of pytest]
# Each run limits torch, oneDNN and MKL to one instruction set, and torch to one or two threads. A test that fails in one
# of them rests on the rounding of one processor: let it state a relation (equal to autoregressive on this machine).
# PYTHON=<path>     the interpreter (default: .venv/bin/python if there is one, else python3)
# RUNS="avx2:1"     which runs (default: native:1 native:2 avx2:1 avx2:2 default:1 default:2)
# FOLDERS="engine"  which folders of tests/
set -u
cd "$(dirname "$0")/.." || exit 1

if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
RUNS=${RUNS:-native:1 native:2 avx2:1 avx2:2 default:1 default:2}
FOLDERS=${FOLDERS:-decoding rounds phases execution drafting engine eagle3 check strategies models end_to_end kernels tune training studies}

limits() { # the settings of one instruction set
  case $1 in
    native) ;;
    avx2) echo ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2 ;;
    default) echo ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE ;;
    *) echo "no instruction set $1; there are native, avx2, default" >&2 && exit 2 ;;
  esac
}

failed=()
for run in ${RUNS}; do
  read -ra settings <<<"$(limits "${run%:*}") OMP_NUM_THREADS=${run#*:} OMP_WAIT_POLICY=passive"
  echo "== ${settings[*]}"
  # shellcheck disable=SC2086
  env "${settings[@]}" "${PYTHON}" -m pytest -q -n 2 --dist worksteal "$@" $(printf 'tests/%s ' ${FOLDERS}) || failed+=("${run}")
done

if ((${#failed[@]})); then
  echo "FAILED: ${failed[*]}" >&2
  exit 1
fi
echo "passed: ${RUNS}"
