"""Values of tensors are taken apart for graphs and put together again; phases are data."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import pytest
import torch

from ssd_lab.decoding.topology import from_widths
from ssd_lab.execution.structure import each_tensor, flatten, unflatten
from ssd_lab.phases.draft_chain import ChainPhase
from ssd_lab.phases.draft_tree import BranchShape, TreePhase
from ssd_lab.phases.grow_dynamic_tree import DynamicShape, GrowDynamicTreePhase
from ssd_lab.phases.grow_tree import GrowTreePhase
from ssd_lab.phases.keep_path import KeepPathPhase
from ssd_lab.phases.prefill import HeadPrefillPhase, LongPrefillPhase, PrefillPhase, ScorePhase, WipePhase
from ssd_lab.phases.verification import VerifyOptions
from ssd_lab.phases.verify import VerifyChainPhase
from ssd_lab.phases.verify_tree import VerifyTreePhase
from ssd_lab.rounds.drawing import PLAIN

PHASES = [
    ChainPhase(4, 512, PLAIN),
    TreePhase(BranchShape(10, 4, 3), 512, 512, PLAIN),
    GrowTreePhase(from_widths([2, 2]), 512, True, True),
    GrowDynamicTreePhase(DynamicShape(2, 3, 5), 512, True),
    KeepPathPhase(),
    PrefillPhase(512, (1, 2)),
    LongPrefillPhase(512),
    HeadPrefillPhase(512),
    ScorePhase(),
    WipePhase(),
    VerifyChainPhase(512, VerifyOptions()),
    VerifyTreePhase(512, VerifyOptions(details=3)),
]


@dataclass(frozen=True)
class Inner:
    tensor: torch.Tensor
    number: int


@dataclass(frozen=True)
class Outer:
    first: torch.Tensor
    inner: Inner | None
    several: tuple[torch.Tensor, ...] = ()


def value(number: int = 3) -> Outer:
    return Outer(torch.ones(2), Inner(torch.zeros(2, 2), number), (torch.arange(3), torch.arange(4)))


def test_a_value_comes_back_as_it_was() -> None:
    tensors, structure = flatten(value())
    assert [tuple(tensor.shape) for tensor in tensors] == [(2,), (2, 2), (3,), (4,)]
    back = unflatten(structure, tensors)
    assert isinstance(back, Outer) and back.inner is not None and back.inner.number == 3
    assert back.first is tensors[0] and back.several == (tensors[2], tensors[3])


def test_structures_are_equal_where_tensors_may_take_each_others_places() -> None:
    assert flatten(value())[1] == flatten(value())[1]
    assert hash(flatten(value())[1]) == hash(flatten(value())[1])
    different = [value(4), Outer(torch.ones(2), None), Outer(torch.ones(2), value().inner), torch.ones(2), None]
    structures = [flatten(each)[1] for each in (value(), *different)]
    assert len(set(structures)) == len(structures)


def test_every_tensor_is_changed_and_nothing_else() -> None:
    changed = each_tensor(lambda tensor: tensor + 1, value())
    assert changed.inner is not None and changed.inner.number == 3
    assert changed.inner.tensor.tolist() == [[1.0, 1.0], [1.0, 1.0]] and changed.several[1].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_a_phase_is_data_that_can_be_sent_to_another_rank(phase) -> None:
    """Equal and of equal hash on the other side, so that it finds the graph that was captured there."""
    other = pickle.loads(pickle.dumps(phase))
    assert other == phase and hash(other) == hash(phase)
    assert len({(each.name, each) for each in PHASES}) == len({each.name for each in PHASES}) == len(PHASES)
