"""Random numbers are a function of (seed, position, purpose), and look like nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from decoding.chi_square import chi_square_p
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_lab.decoding import random as counter
from ssd_lab.decoding.random import Purpose, uniform

COUNT = 40_000
SAFE = 1e-4  # all numbers are fixed: a test that passes once passes always
SEEDS = torch.arange(200)[:, None]
POSITIONS = torch.arange(200)[None, :]
int64 = st.integers(-(2**63), 2**63 - 1)


def slowly(seed: int, position: int, purpose: int) -> float:
    """The same in Python's own integers."""

    def mix(x: int) -> int:
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = (x ^ (x >> shift)) * factor % 2**32
        return x ^ (x >> 16)

    low, high = seed % 2**32, (seed >> 32) % 2**32
    state = mix((low + 0x9E3779B9 * purpose) % 2**32)
    state = mix(state ^ high)
    state = mix((state + position * 0x9E3779B1) % 2**32)
    state = mix(((state ^ low) + 0x7F4A7C15) % 2**32)
    return ((state >> 9) + 0.5) / 2**23


@settings(deadline=None)
@given(int64, st.integers(0, 2**31), st.sampled_from(Purpose))
def test_numbers_are_those_of_whole_number_arithmetic(seed: int, position: int, purpose: Purpose):
    number = uniform(torch.tensor(seed), torch.tensor(position), purpose)
    assert number.dtype == torch.float32
    assert number.item() == slowly(seed, position, purpose)


def test_numbers_never_change_from_one_version_to_the_next():
    seen = [round(uniform(torch.tensor(7), torch.tensor(3), purpose).item(), 5) for purpose in Purpose]
    assert seen == [0.24542, 0.96128, 0.40969, 0.12258]


@pytest.mark.parametrize("state", [0, 2**32 - 1])
def test_the_interval_is_open_at_both_ends(state: int, monkeypatch: pytest.MonkeyPatch):
    """0 would choose a token of probability 0, and 1 would choose none at all."""
    monkeypatch.setattr(counter, "_mix", lambda x: torch.full_like(x, state))
    number = uniform(torch.tensor(1), torch.tensor(1), Purpose.DRAFT).item()
    assert 0 < number < 1


def test_numbers_do_not_depend_on_the_batch_they_are_made_in():
    together = uniform(SEEDS, POSITIONS, Purpose.ACCEPT)
    alone = [uniform(torch.tensor([seed]), torch.tensor([5]), Purpose.ACCEPT).item() for seed in (0, 17, 199)]
    assert [together[seed, 5].item() for seed in (0, 17, 199)] == alone
    assert torch.equal(together[3:9, 50:60], uniform(SEEDS[3:9], POSITIONS[:, 50:60], Purpose.ACCEPT))


@pytest.mark.parametrize("purpose", Purpose)
def test_numbers_are_uniform_over_positions_and_over_seeds(purpose: Purpose):
    for seeds, positions in ((torch.tensor(11), torch.arange(COUNT)), (torch.arange(COUNT), torch.tensor(11))):
        numbers = uniform(seeds, positions, purpose).numpy()
        counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
        assert chi_square_p(counts, np.full(100, COUNT / 100)) > SAFE


# numbers that a request, or two, might use side by side: what `uniform` is given for the one and for the other
PLAIN = (SEEDS, POSITIONS, Purpose.DRAFT)
PAIRS = {
    "neighbouring positions": (PLAIN, (SEEDS, POSITIONS + 1, Purpose.DRAFT)),
    "positions one block apart": (PLAIN, (SEEDS, POSITIONS + 16, Purpose.DRAFT)),
    "neighbouring siblings": (PLAIN, (*PLAIN, 1)),
    "the fifth sibling at the next position": (PLAIN, (SEEDS, POSITIONS + 1, Purpose.DRAFT, 4)),
    "neighbouring seeds": (PLAIN, (SEEDS + 1, POSITIONS, Purpose.DRAFT)),
    "seeds that differ in the high half": (PLAIN, (SEEDS + 2**40, POSITIONS, Purpose.DRAFT)),
    "seeds of opposite sign": (PLAIN, (-1 - SEEDS, POSITIONS, Purpose.DRAFT)),
    "seeds one golden ratio apart, next purpose": (
        (SEEDS + 0x9E3779B9, POSITIONS, Purpose.DRAFT),
        (SEEDS, POSITIONS, Purpose.ACCEPT),
    ),
    **{
        f"{one.name} and {other.name} at one position": ((SEEDS, POSITIONS, one), (SEEDS, POSITIONS, other))
        for one, other in itertools.combinations(Purpose, 2)
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_numbers_used_side_by_side_are_independent(name: str):
    one, other = (uniform(*given) for given in PAIRS[name])
    joint = np.histogram2d(one.numpy().ravel(), other.numpy().ravel(), bins=12, range=[(0, 1), (0, 1)])[0]
    assert chi_square_p(joint, np.full((12, 12), one.numel() / 144)) > SAFE
