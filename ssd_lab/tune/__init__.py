"""Find the fastest strategy for these prompts on this machine: `ssd_lab.tune(prompts)`, `ssd-lab tune`."""

from ssd_lab.common.callable_module import make_callable
from ssd_lab.tune.candidates import Candidate
from ssd_lab.tune.tuner import tune
from ssd_lab.tune.tuning import Scored, Tuning

__all__ = ["Candidate", "Scored", "Tuning", "tune"]

make_callable(__name__, tune)
