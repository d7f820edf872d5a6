"""A run as one row of a table: plain numbers, unknown ones None."""

from __future__ import annotations

from ssd_lab.common.late import late
from ssd_lab.common.statistics import Estimate
from ssd_lab.display.tables import Row
from ssd_lab.errors import ConfigError
from ssd_lab.results.measured import Measured
from ssd_lab.results.speeds import speed, speedup


def metrics_row(name: str, run: Measured) -> Row:
    """What a run tells by itself."""
    metrics = run.metrics
    first_token = metrics.time_to_first_token_s
    return {
        "name": name,
        "strategy": run.strategy_name,
        **_estimated("tokens_per_second", speed(run)),
        "num_turns": max(1, len(run.turns)),
        "tokens_per_round": metrics.tokens_per_round,
        "acceptance_rate": metrics.acceptance_rate,
        "cache_hit_rate": metrics.cache_hit_rate,
        "predicted_cache_hit_rate": metrics.predicted_cache_hit_rate,
        "time_to_first_token_s": None if first_token is None else first_token.mean,
        "processor_share": metrics.processor_share,
        "num_outputs": len(run.outputs),
        "interrupted": run.interrupted,
        "num_output_tokens": metrics.num_output_tokens,
        "exact": metrics.exact,
        "lossy_reason": metrics.lossy_reason,
    }


def against(baseline: Measured | None, run: Measured) -> Row:
    """What only makes sense beside other runs, whole ones."""
    if run.interrupted or (baseline is not None and baseline.interrupted):
        baseline = None
    same_text = None
    if baseline is not None:
        pairs = zip(run.outputs, baseline.outputs, strict=False)  # by prompt: request ids are each run's own
        same_text = sum(ours.token_ids == theirs.token_ids for ours, theirs in pairs)
    return {
        **_estimated("speedup", None if baseline is None else speedup(run, baseline)),
        "same_text": same_text,
        "simulated_tokens_per_second": _simulated_tokens_per_second(run),
    }


def simulated_hardware() -> str:
    """The machine of a comparison's simulated speeds."""
    return late("PUBLISHED_70B").name


def _estimated(key: str, estimate: Estimate | None) -> Row:
    if estimate is None:
        return {key: None, f"{key}_low": None, f"{key}_high": None}
    return {key: estimate.mean, f"{key}_low": estimate.low, f"{key}_high": estimate.high}


def _simulated_tokens_per_second(run: Measured) -> float | None:
    try:
        return run.simulated().tokens_per_second
    except ConfigError:  # too little was recorded to replay
        return None
