"""Are the answers right? GSM8K's numbers and HumanEval's programs, scored beside the speed."""

from ssd_lab.bench.quality.results import PromptScore, QualityResult
from ssd_lab.bench.quality.sandbox import Limits, Program, SandboxResult, run_program
from ssd_lab.bench.quality.scoring import SCORED, score

__all__ = ["SCORED", "Limits", "Program", "PromptScore", "QualityResult", "SandboxResult", "run_program", "score"]
