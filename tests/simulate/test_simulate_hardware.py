"""Hardware profiles: time models, files, and the published machine against the published speeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ssd_lab.errors import ConfigError
from ssd_lab.simulate import PUBLISHED_70B, AffineTime, HardwareProfile, Rates, TableTime, find_profile, simulate

# gives the 4.3 tokens a round that the published synchronous and asynchronous speeds both imply at k = 6
ACCEPTANCE = 0.829


def test_affine_and_table_times():
    assert AffineTime(base_s=1, per_row_s=0.5).at(4) == 3.0
    table = TableTime(rows=(1, 4, 8), seconds=(1.0, 2.5, 3.5))
    assert [table.at(n) for n in (0, 1, 2, 4, 6, 8, 12)] == [1.0, 1.0, 1.5, 2.5, 3.0, 3.5, 4.5]
    assert TableTime(rows=(7,), seconds=(2.0,)).at(100) == 2.0


@pytest.mark.parametrize(("rows", "seconds"), [((1, 2), (1.0,)), ((2, 1), (1.0, 2.0)), ((1,), (-1.0,)), ((), ())])
def test_bad_tables_are_refused(rows: tuple[int, ...], seconds: tuple[float, ...]):
    with pytest.raises(ValidationError):
        TableTime(rows=rows, seconds=seconds)


def test_a_profile_survives_its_file(tmp_path: Path):
    PUBLISHED_70B.save(tmp_path / "profile.json")
    assert HardwareProfile.load(tmp_path / "profile.json") == PUBLISHED_70B
    assert find_profile(tmp_path / "profile.json") == PUBLISHED_70B


def test_profiles_that_are_missing_or_damaged_are_explained(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"unknown hardware 'abacus'; known: published-4xh100\+1"):
        find_profile("abacus")
    with pytest.raises(ConfigError, match="no hardware profile at"):
        find_profile(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"name": "x"}')
    with pytest.raises(ConfigError, match=r"is not a hardware profile: [^\n]{5,100}$"):
        find_profile(tmp_path / "bad.json")


def test_the_published_machine_gives_the_published_speeds():
    rates = Rates(ACCEPTANCE, 6, hit_rate=0.85, rounds=20_000)
    asynchronous, synchronous = simulate(rates), simulate(rates, strategy="sync")
    autoregressive = simulate(rates, strategy="autoregressive")
    assert autoregressive.tokens_per_second == pytest.approx(54.7, rel=1e-6)
    assert synchronous.tokens_per_second == pytest.approx(161.8, rel=0.02)
    assert asynchronous.tokens_per_second == pytest.approx(255.8, rel=0.02)


def test_the_published_synchronous_batch_speeds_are_met():
    for batch, per_sequence in {1: 162, 2: 158, 4: 155, 8: 145, 16: 130}.items():
        simulation = simulate(Rates(ACCEPTANCE, 6, batch=batch, rounds=8000 // batch))
        assert simulation.tokens_per_second_per_sequence == pytest.approx(per_sequence, rel=0.04)


def test_the_inconsistent_baseline_is_said_and_avoided():
    simulation = simulate(Rates(ACCEPTANCE, 6, hit_rate=0.85))
    assert simulation.speedup > simulation.tokens_per_round > simulation.conservative_speedup
    assert any("autoregressive step" in caveat for caveat in simulation.caveats)
