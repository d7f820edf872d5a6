"""A measurement in words: the roofline table, the rounds, and the ratios that say how near the floor a round is."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from ssd_lab.display.tables import Table
from ssd_lab.profile import points, prompts, starts
from ssd_lab.profile.check import CheckedRounds, told_apart
from ssd_lab.profile.points import Measurement

Cells = list[str]
ROOFLINE_TITLES = ("what", "model", "batch", "context", "rows", "ms", "GB", "floor ms", "of bandwidth")
ROUND_TITLES = (
    "strategy", "batch", "context", "round ms", "phases ms", "beyond them", "device idle", "tokens/s", "tokens/round",
)  # fmt: skip
CHECK_TITLES = (
    "strategy", "batch", "rounds", "recorded ms", "predicted ms", "error", "within 10 %", "measured tokens/s",
    "by the profile", "predicted / measured",
)  # fmt: skip
RATIO_TITLES = ("figure", "measured")


def roofline_rows(measurement: Measurement) -> list[Cells]:
    """Every point, with the time that its bytes need at the bandwidth."""
    return [
        [
            point.what,
            point.model,
            str(point.batch),
            f"{point.context:,}",
            str(point.rows),
            f"{point.seconds * 1e3:.3f}",
            f"{point.bytes / 1e9:.3f}",
            f"{point.bytes / measurement.bandwidth * 1e3:.3f}",
            f"{point.share_of(measurement.bandwidth):.1%}",
        ]
        for point in itertools.chain(measurement.points, *(part.points for part in measurement.slices))
    ]


def round_rows(measurement: Measurement) -> list[Cells]:
    """Every round of a whole run."""
    return [
        [
            point.strategy,
            str(point.batch),
            f"{point.context:,}",
            f"{point.round_s * 1e3:.3f}",
            "-" if point.phases_s is None else f"{point.phases_s * 1e3:.3f}",
            "-" if point.overhead_s is None else f"{point.overhead_s * 1e3:+.3f} ms",
            "-" if point.host_s is None else f"{point.host_s * 1e3:.3f} ms",
            f"{point.tokens_per_second:,.1f}",
            f"{point.tokens_per_round:.2f}",
        ]
        for point in measurement.rounds
    ]


def ratio_rows(measurement: Measurement) -> list[Cells]:
    """What the roofline table comes to, at batch 1 and the first context."""
    context, k = min(point.context for point in measurement.points), measurement.k
    found: list[Cells] = [["read bandwidth", f"{measurement.bandwidth / 1e12:.3f} TB/s"]]
    bandwidth = measurement.bandwidth
    step = measurement.find(points.AUTOREGRESSIVE, "target", batch=1, context=context)
    verify = measurement.find(points.VERIFY, "target", batch=1, context=context, rows=k + 1)
    chain = measurement.find(points.CHAIN_STEP, "draft", batch=1, context=context)
    tree = measurement.find(points.TREE_STEP, "draft", batch=1, context=context)
    if step is not None:
        found.append(
            ["autoregressive step", f"{step.seconds * 1e3:.3f} ms, {step.share_of(bandwidth):.1%} of bandwidth"]
        )
    if step is not None and verify is not None:
        found.append([f"verify, {k + 1} rows, over the step", f"{verify.seconds / step.seconds:.3f}"])
    if chain is not None:
        found.append(
            ["draft chain step", f"{chain.seconds * 1e3:.3f} ms, {chain.share_of(bandwidth):.1%} of bandwidth"]
        )
    if chain is not None and tree is not None:
        found.append([f"tree step, {tree.rows} branches, over the chain step", f"{tree.seconds / chain.seconds:.3f}"])
    sync = next((r for r in measurement.rounds if r.strategy == "sync_chain" and r.batch == 1), None)
    if sync is not None and verify is not None and chain is not None:
        parts = verify.seconds + (k + 1) * chain.seconds
        found.append(
            [
                f"synchronous round over verify + {k + 1} draft steps",
                f"{sync.round_s * 1e3:.3f} ms, {sync.round_s / parts:.3f}",
            ]
        )
    return found


def check_rows(checked: Sequence[CheckedRounds]) -> list[Cells]:
    """Predicted beside recorded, run by run."""
    return [
        [
            one.strategy,
            str(one.batch),
            str(one.rounds),
            f"{one.recorded_s * 1e3:.3f}",
            f"{one.predicted_s * 1e3:.3f}",
            f"{one.error:+.1%}",
            "yes" if one.holds else "no",
            *_rates(one),
        ]
        for one in checked
    ]


def _rates(one: CheckedRounds) -> Cells:
    """Mean rates, and the ratio's mean and range over the runs."""
    if not one.rates:
        return ["-", "-", "-"]
    measured, predicted = (statistics.mean(own) for own in zip(*one.rates, strict=True))
    spread = f" ({min(one.ratios):.2f} to {max(one.ratios):.2f})" if len(one.ratios) > 1 else ""
    return [f"{measured:,.1f}", f"{predicted:,.1f}", f"{statistics.mean(one.ratios):.2f}{spread}"]


def check_markdown(checked: Sequence[CheckedRounds]) -> str:
    """The simulator against real rounds."""
    return (
        "## The simulator against these rounds\n\n"
        "Predicted ms: from times that every other round of the same run took, for the rounds between. By the profile: "
        "what `simulate` says of the same rounds from the hardware profile above, which knows nothing of these runs: "
        "they took turns, on other prompts, with those it was made of. The ratio's mean and range over runs.\n\n"
        + Table(CHECK_TITLES, check_rows(checked)).to_markdown()
        + f"\n\n{_order(checked)}\n"
    )


def _order(checked: Sequence[CheckedRounds]) -> str:
    """Is what was measured faster predicted to be?"""
    pairs = told_apart(checked)
    if not pairs:
        return "Order: the runs tell no two strategies apart (more of them do: `--passes`)."
    wrong = [
        f"{one.faster} over {one.slower} at batch {one.batch} ({one.measured:.2f} times, {one.predicted:.2f} predicted)"
        for one in pairs
        if not one.holds
    ]
    said = (
        f"Order: of {len(pairs)} pairs that the runs tell apart, {len(pairs) - len(wrong)} are predicted in their order"
    )
    return f"{said}; not {', '.join(wrong)}." if wrong else f"{said}."


def markdown(measurement: Measurement, *, command: str) -> str:
    """The whole report."""
    models = ", ".join(f"{role} `{source}`" for role, source in measurement.models.items())
    parts = [
        f"`{command}`",
        f"Models: {models}; k = {measurement.k}, fan-out {list(measurement.fan_out)}.",
        Table(RATIO_TITLES, ratio_rows(measurement)).to_markdown(),
        "## Phases alone\n\n"
        "Floor: weights and K/V, each read once, at the bandwidth measured in the same run.\n\n"
        + Table(ROOFLINE_TITLES, roofline_rows(measurement)).to_markdown(),
    ]
    if measurement.rounds:
        parts.append(
            "## Rounds of whole runs\n\n"
            "Phases: those of the round alone, one after the other (asynchronous: the longer of verification and "
            "tree), with the same recording. Device idle: no graph ran, by the device's clock.\n\n"
            + Table(ROUND_TITLES, round_rows(measurement)).to_markdown()
        )
    if measurement.prompts is not None:
        parts.append(prompts.markdown(measurement.prompts))
    if measurement.starts:
        parts.append(starts.markdown(measurement.starts))
    return "\n\n".join(parts) + "\n"
