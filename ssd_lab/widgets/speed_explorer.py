"""When does asynchronous speculation pay? Sliders over the simulator, with the closed form beside."""

from __future__ import annotations

from typing import Any

from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError
from ssd_lab.simulate import AffineTime, HardwareProfile, Rates, simulate
from ssd_lab.widgets.front_end import TabularWidget, traitlets
from ssd_lab.widgets.view_model.speed import DEFAULTS, closed_form_speeds, tree_share

ROUNDS = 2000  # drawn for each answer: a few hundredths of a second


class SpeedExplorer(TabularWidget):
    """Speed-ups over autoregressive decoding. Trait `settings`: see `view_model.speed.DEFAULTS`; `simulated`: the
    simulator's answer to them, `{"sync": .., "async": ..}`.

    Raises ConfigError for a setting that does not exist.
    """

    kind = traitlets.Unicode("speed").tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)
    simulated = traitlets.Dict().tag(sync=True)

    def __init__(self, **settings: Any) -> None:
        unknown = sorted(set(settings) - set(DEFAULTS))
        if unknown:
            raise ConfigError(f"unknown settings {unknown}; the explorer has {', '.join(DEFAULTS)}")
        chosen = {**DEFAULTS, **settings}
        super().__init__(settings=chosen, simulated=simulated_speeds(chosen))

    @traitlets.observe("settings")
    def _simulate(self, change: Any) -> None:
        self.simulated = simulated_speeds(change["new"])

    def table(self) -> Table:
        """Closed form beside simulation."""
        formula = closed_form_speeds(self.settings)
        rows = [[name, f"{formula[name]:.2f}x", f"{self.simulated[name]:.2f}x"] for name in ("sync", "async")]
        return Table(("", "closed form", "simulated rounds"), rows, "Speed over autoregressive decoding")

    def __repr__(self) -> str:
        return self.table().to_text()

    def _repr_html_(self) -> str:
        return self.table().to_html()


def simulated_speeds(settings: dict[str, Any]) -> dict[str, float]:
    """The simulator's speed-ups for these settings: rounds drawn by their rates, timed on a machine of their times."""
    verify_s, step_s, branch_s = (settings[name] * 1e-3 for name in ("verify_ms", "draft_step_ms", "branch_ms"))
    profile = HardwareProfile(
        name="explorer",
        source="the explorer's sliders",
        verify_s=AffineTime(base_s=verify_s),
        draft_step_s=AffineTime(base_s=step_s, per_row_s=branch_s),
        draft_tree_step_s=AffineTime(base_s=step_s, per_row_s=branch_s * tree_share(settings)),
    )
    shared = {"acceptance": settings["acceptance"], "k": settings["k"], "batch": settings["batch"], "rounds": ROUNDS}
    fast = settings["fallback"] == "fast"
    ahead = Rates(
        **shared,
        hit_rate=settings["hit_rate"],
        miss_acceptance=settings["fast_acceptance"] if fast else None,
        fallback=settings["fallback"],
        branches=settings["fan_out"] * (settings["k"] + 1),
    )
    return {"sync": simulate(Rates(**shared), profile).speedup, "async": simulate(ahead, profile).speedup}
