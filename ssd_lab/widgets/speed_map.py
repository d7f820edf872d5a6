"""Does asynchronous speculation pay on this machine? A map over T and the hit rate, with machines as its points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from typing import Any

from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError
from ssd_lab.simulate import PUBLISHED_70B, HardwareProfile
from ssd_lab.trace.named import named_traces
from ssd_lab.widgets.front_end import TabularWidget, traitlets
from ssd_lab.widgets.map_picture import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, map_svg
from ssd_lab.widgets.view_model.speed_map import MOST_T, MapPoint, gain_at, machine_point, measured_point

LEAD = "Speed of asynchronous over synchronous speculation"


class SpeedMap(TabularWidget):
    """Asynchronous over synchronous, by T (the draft's time over the verification's) and hit rate. Traits: `points`
    (machines, see `MapPoint`), `picture` (SVG) and `place` (T and hit rate of the reader's cross).

    machines: hardware profiles, their names or files, by the name to show; None: the published one. runs: a comparison
    that holds `sync_chain` and `async_tree`, for a point of this machine. k, fan_out, acceptance, hit_rate: of the
    profiles' points. Raises ConfigError for a profile that does not exist, a rate outside 0..1, or runs that lack one
    of the two.
    """

    kind = traitlets.Unicode("map").tag(sync=True)
    points = traitlets.List(traitlets.Dict()).tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    frame = traitlets.Dict(help="where the picture's axes lie").tag(sync=True)
    place = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        machines: Mapping[str, HardwareProfile | str | PathLike[str]] | None = None,
        *,
        runs: Any = None,
        k: int = 6,
        fan_out: int = 3,
        acceptance: float = 0.8,
        hit_rate: float = 0.85,
    ) -> None:
        if k < 1 or fan_out < 1:
            raise ConfigError(f"k is {k} and fan_out {fan_out}; both must be at least 1")
        known = {"4 + 1 H100 (published)": PUBLISHED_70B} if machines is None else machines
        rates: dict[str, Any] = {"k": k, "fan_out": fan_out, "acceptance": acceptance, "hit_rate": hit_rate}
        points = [machine_point(name, hardware, **rates) for name, hardware in known.items()]
        if runs is not None:
            points.append(measured_point("this machine, these runs", named_traces(runs)))
        at = points[-1] if points else MapPoint("", 1.0, hit_rate, 1.0, "")
        super().__init__(
            points=[asdict(point) for point in points],
            picture=map_svg(points),
            frame={
                "width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM,
                "most": MOST_T,
            },
            place={"draft_time": min(MOST_T, at.draft_time), "hit_rate": at.hit_rate},
        )  # fmt: skip

    def table(self) -> Table:
        """The points."""
        rows = [
            [f"{number}. {one['name']}", f"{one['draft_time']:.2f}", f"{one['hit_rate']:.0%}", f"{one['gain']:.2f}x",
             f"{gain_at(one['draft_time'], one['hit_rate']):.2f}x"]
            for number, one in enumerate(self.points, 1)
        ]  # fmt: skip
        assumed = "the map assumes a device for each model and a tree that costs no more than a chain"
        sources = [f"{number}. {one['source']}" for number, one in enumerate(self.points, 1)]
        return Table(("machine", "T", "hits", "async over sync", "by the map"), rows, LEAD, [assumed, *sources])

    def __repr__(self) -> str:
        return self.table().to_text()

    def _repr_html_(self) -> str:
        return f"{self.picture}{self.table().to_html()}"
