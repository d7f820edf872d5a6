"""A CUDA device that cannot work is refused before anything is loaded, by what is wrong and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssd_lab.assembly import cuda_check
from ssd_lab.assembly.cuda_check import check_cuda, check_cuda_build
from ssd_lab.errors import ConfigError


class Card:
    """A torch with CUDA and one card, as the tests want them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.is_like()

    def is_like(
        self,
        *,
        capability: tuple[int, int] = (9, 0),
        built_for: tuple[str, ...] = ("sm_80", "sm_90"),
        cuda: str | None = "12.8",
        count: int = 1,
        start: Exception | None = None,
    ) -> None:
        def init() -> None:
            if start is not None:
                raise start

        patch = self._monkeypatch.setattr
        patch(torch.version, "cuda", cuda)
        patch(torch.version, "hip", None)
        patch(torch.cuda, "init", init)
        patch(torch.cuda, "device_count", lambda: count)
        patch(torch.cuda, "get_device_capability", lambda device: capability)
        patch(torch.cuda, "get_device_name", lambda device: "a card")
        patch(torch.cuda, "get_arch_list", lambda: list(built_for))
        patch(cuda_check, "choose_kernels", lambda device, name: self.chosen.append(name))
        self.chosen: list[str] = []


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    return Card(monkeypatch)


CUDA = torch.device("cuda")
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a CPU build": ({"cuda": None}, r"built without CUDA.*install a build with CUDA.*or give device cpu"),
    "no driver": ({"start": RuntimeError("Found no NVIDIA driver on your system.\nMore")}, "Found no NVIDIA driver"),
    "an old driver": (
        {"start": RuntimeError("The NVIDIA driver on your system is too old (found version 11040).")},
        r"too old \(found version 11040\).*built for CUDA 12\.8; update the driver",
    ),
    "no card": ({"count": 0}, "0 CUDA devices are here"),
    "a card too new": (
        {"capability": (12, 0)}, r"capability 12\.0, and torch .* has code for sm_80, sm_90 only: install a torch",
    ),
    "a card too old": ({"capability": (7, 5)}, "has code for sm_80, sm_90 only"),
}  # fmt: skip


@pytest.mark.parametrize(("like", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_refused(card: Card, like: dict[str, Any], message: str) -> None:
    card.is_like(**like)
    with pytest.raises(ConfigError, match=message):
        check_cuda(CUDA)
    assert not card.chosen


def test_a_second_card_that_is_not_there(card: Card) -> None:
    with pytest.raises(ConfigError, match="'cuda:1' was asked for and 1 CUDA devices are here"):
        check_cuda_build(torch.device("cuda:1"))


@pytest.mark.parametrize(
    ("capability", "built_for"),
    [
        ((8, 0), ("sm_80", "sm_90")),
        ((8, 9), ("sm_80", "sm_86", "sm_90")),
        ((9, 0), ("sm_80", "sm_90a")),
        ((12, 0), ("sm_80", "compute_90")),
        ((10, 3), ("sm_90", "sm_100")),
        ((9, 0), ()),  # a build that does not say is given the benefit of the doubt
    ],
)
def test_code_for_an_older_card_of_the_same_kind_or_any_older_one_in_between_code_is_enough(
    card: Card, capability: tuple[int, int], built_for: tuple[str, ...]
) -> None:
    card.is_like(capability=capability, built_for=built_for)
    check_cuda(CUDA, "torch")
    assert card.chosen == ["torch"]  # where capability and compiler are looked at: test_kernels_backend.py


def test_a_cpu_needs_nothing_of_this(card: Card) -> None:
    card.is_like(cuda=None)
    check_cuda(torch.device("cpu"))


def test_the_command_line_says_it_in_one_line(card: Card) -> None:
    from typer.testing import CliRunner

    from ssd_lab.cli.main import app

    card.is_like(start=RuntimeError("Found no NVIDIA driver on your system."))
    result = CliRunner().invoke(app, ["run", "hi", "--device", "cuda"])
    assert result.exit_code == 2
    assert "error: device 'cuda' was asked for, and CUDA does not start" in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
