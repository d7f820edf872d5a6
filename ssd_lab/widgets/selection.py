"""What is selected, shared by the widgets that are given the same object."""

from __future__ import annotations

import uuid
from typing import Any

from ssd_lab.widgets.front_end import traitlets


class Selection(traitlets.HasTraits):
    """`value` is a dictionary: `run` (number), `request` (id), `step` (its round, from 0) and `place` in that round.

    Where a view says "round 5", `round=5` selects it here too; `value` holds it as `step` 4.

    Places: `draft:i` the i-th draft token, `recovery` the target's own token, `branch:n:d` node d of prepared branch n,
    `node:i` a node of a verified tree; None: the round as a whole. Setting `value` moves every widget that shares it.
    `chosen_ms` in it is when a page's user chose it.
    """

    value = traitlets.Dict()
    name = traitlets.Unicode(help="unique: by it the widgets of a page know which of them move together")

    def __init__(self, **fields: Any) -> None:
        beginning = {"run": 0, "request": None, "step": 0, "place": None}
        super().__init__(name=uuid.uuid4().hex, value={**beginning, **_by_step(fields)})

    def select(self, **fields: Any) -> None:
        """Change some fields; the place is forgotten unless given, for it belongs to one round."""
        kept = {name: value for name, value in self.value.items() if name != "chosen_ms"}
        self.value = {**kept, "place": None, **_by_step(fields)}


def _by_step(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with `round`, counted from 1 as on the screen, as `step`."""
    kept = {name: value for name, value in fields.items() if name != "round"}
    return kept if "round" not in fields else {**kept, "step": fields["round"] - 1}
