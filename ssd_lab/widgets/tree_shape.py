"""The shape of a draft tree, drawn, with the mask that lets the target verify it in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssd_lab.decoding.tree import ancestors
from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError
from ssd_lab.widgets.front_end import TabularWidget, traitlets


class TreeShape(TabularWidget):
    """A tree and who sees whom in it. Traits: `parents`, of each node (-1: the text), `words` on the nodes, and
    `chosen`, the node that is told about.

    tree: a `Topology` (`decoding.topology`), or parents. words: on its nodes; None: the node's place among the draft's
    choices there. Raises ConfigError where there is not one for each node.
    """

    kind = traitlets.Unicode("shape").tag(sync=True)
    parents = traitlets.List(traitlets.Int()).tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)

    def __init__(self, tree: Any, words: Sequence[str] | None = None) -> None:
        parents = list(getattr(tree, "parents", tree))
        if not parents:
            raise ConfigError("a tree without nodes has no shape: give at least one parent")
        given = [_choice(parents, node) for node in range(len(parents))] if words is None else list(words)
        if len(given) != len(parents):
            raise ConfigError(
                f"the tree has {len(parents)} nodes, and {len(given)} words were given: give one for each"
            )
        self._paths = ancestors(parents)
        super().__init__(parents=parents, words=given, chosen=len(parents) - 1)

    def table(self) -> Table:
        """Node by node."""
        rows = [
            [
                str(node),
                self.words[node],
                "the text" if parent < 0 else str(parent),
                " ".join(map(str, path[:-1])) or "-",
            ]
            for node, (parent, path) in enumerate(zip(self.parents, self._paths, strict=True))
        ]
        return Table(("node", "token", "after", "sees, beside the text"), rows, "A draft tree", sides=["left"] * 4)

    def __repr__(self) -> str:
        return self.table().to_text()

    def _repr_html_(self) -> str:
        return self.table().to_html()


def _choice(parents: list[int], node: int) -> str:
    """The draft's first, second, ... choice at its place."""
    rank = parents[:node].count(parents[node]) + 1
    return f"{rank}{({1: 'st', 2: 'nd', 3: 'rd'}).get(rank, 'th')}"
