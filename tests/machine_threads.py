"""How many threads tests take: one, unless OMP_NUM_THREADS says more (`make test-isa` runs them with two)."""

import os

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
