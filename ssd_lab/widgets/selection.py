"""What is selected, shared by the widgets that are given the same object."""

from __future__ import annotations

import uuid
from typing import Any

from ssd_lab.widgets.front_end import traitlets


class Selection(traitlets.HasTraits):
    """`value` is a dictionary: `run` (number), `request` (id), `step` (its round, from 0) and `place` in that round.

    Places: `draft:i` the i-th draft token, `recovery` the target's own token, `branch:n:d` node d of prepared branch n,
    `node:i` a node of a verified tree; None: the round as a whole. Setting `value` moves every widget that shares it.
    `chosen_ms` in it is when a page's user chose it.
    """

    value = traitlets.Dict()
    name = traitlets.Unicode(help="unique: by it the widgets of a page know which of them move together")

    def __init__(self, **fields: Any) -> None:
        super().__init__(name=uuid.uuid4().hex, value={"run": 0, "request": None, "step": 0, "place": None, **fields})

    def select(self, **fields: Any) -> None:
        """Change some fields; the place is forgotten unless given, for it belongs to one round."""
        kept = {name: value for name, value in self.value.items() if name != "chosen_ms"}
        self.value = {**kept, "place": None, **fields}
