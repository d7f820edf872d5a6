"""The settings of tree strategies: what they accept, what they refuse, and the trees they mean."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from ssd_lab.decoding.topology import chain, from_paths, from_widths
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.components.tree_shapes import TreeTopologyConfig
from ssd_lab.strategies.registry import Registry
from ssd_lab.strategies.sync_tree import SyncTree

SHAPES = TypeAdapter(TreeTopologyConfig)


class Buildable(SyncTree):
    """The same settings, as a class that can be made."""

    def build(self, resources):
        raise NotImplementedError


def config(**fields) -> StrategyConfig:
    return Registry().config(Buildable, fields)


def test_each_kind_means_its_tree() -> None:
    assert config(tree={"kind": "fixed", "widths": [3, 2]}).tree.topology == from_widths([3, 2])
    assert config(tree={"kind": "fixed", "paths": [[0], [1], [0, 0]]}).tree.topology == from_paths([[0], [1], [0, 0]])
    assert config(tree={"kind": "optimal", "budget": 4, "acceptance": [0.9]}).tree.topology == chain(4)
    dynamic = config(tree={"kind": "dynamic", "top_k": 3, "depth": 4, "num_nodes": 20})
    assert (dynamic.lookahead, dynamic.tree.depth, dynamic.tree.width) == (4, 4, 3)  # a path of it
    assert config().lookahead == 4


def test_eagle_2s_own_sizes_are_the_default_of_the_dynamic_tree() -> None:
    tree = SHAPES.validate_python({"kind": "dynamic"})
    assert (tree.top_k, tree.depth, tree.num_nodes) == (10, 7, 59)


def test_children_are_drawn_unless_the_tree_is_dynamic() -> None:
    assert config().drawn == "without_replacement"
    assert config(tree={"kind": "dynamic"}).drawn == "top"
    assert config(draws="top").drawn == "top"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tree": {"kind": "fixed"}}, "give either widths or paths"),
        ({"tree": {"kind": "fixed", "widths": [1], "paths": [[0]]}}, "give either widths or paths"),
        ({"tree": {"kind": "fixed", "widths": []}}, "number of children at each depth"),
        ({"tree": {"kind": "fixed", "widths": [0]}}, "greater than or equal to 1"),
        ({"tree": {"kind": "fixed", "widths": [10, 10, 10]}}, "more than 256 nodes by depth 3"),
        ({"tree": {"kind": "fixed", "widths": [65]}}, "65 children a node and depth 1; allowed are 256, 64 and 32"),
        ({"tree": {"kind": "fixed", "paths": [[0, 0]]}}, "where it begins, is not"),
        ({"tree": {"kind": "optimal", "budget": 9, "acceptance": [0.5], "max_depth": 3}}, "no tree of 9 nodes"),
        ({"tree": {"kind": "optimal", "acceptance": [0.8, 0.8]}}, "sum of at most 1"),
        ({"tree": {"kind": "dynamic", "top_k": 2, "depth": 2, "num_nodes": 7}}, "makes 6 candidates"),
        ({"tree": {"kind": "bush"}}, "does not match any of the expected tags"),
        ({"tree": {"kind": "dynamic"}, "draws": "without_replacement"}, "take draws='top'"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(fields: dict, message: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=message):
        config(**fields)


@pytest.mark.parametrize("tree", [{"kind": "fixed", "paths": [[0], [0, 0]]}, {"kind": "optimal"}, {"kind": "dynamic"}])
def test_settings_survive_a_round_trip_as_json(tree: dict) -> None:
    made = config(tree=tree)
    assert Buildable.model_validate_json(made.model_dump_json()) == made
    assert Buildable(**made.model_dump()) == made


def test_every_field_is_described() -> None:
    schema = Buildable.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        for name, field in part["properties"].items():
            assert name == "kind" or field["description"]
