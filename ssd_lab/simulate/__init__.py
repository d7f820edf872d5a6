"""Replay rounds on another machine's virtual clock: `ssd_lab.simulate(trace, hardware="published-4xh100+1")`."""

from ssd_lab.common.callable_module import make_callable
from ssd_lab.simulate.clock import SimulatedRound
from ssd_lab.simulate.hardware import HardwareProfile, MeasuredRound
from ssd_lab.simulate.outcome_model import OutcomeModel, RoundModel
from ssd_lab.simulate.published import PUBLISHED_70B, PUBLISHED_PROFILES, find_profile
from ssd_lab.simulate.scenario import Scenario
from ssd_lab.simulate.simulation import Simulation, simulate
from ssd_lab.simulate.target_ranks import RankSlice
from ssd_lab.simulate.time_models import AffineTime, TableTime
from ssd_lab.simulate.workload import Rates

__all__ = [
    "PUBLISHED_70B",
    "PUBLISHED_PROFILES",
    "AffineTime",
    "HardwareProfile",
    "MeasuredRound",
    "OutcomeModel",
    "RankSlice",
    "Rates",
    "RoundModel",
    "Scenario",
    "SimulatedRound",
    "Simulation",
    "TableTime",
    "find_profile",
    "simulate",
]

make_callable(__name__, simulate)
