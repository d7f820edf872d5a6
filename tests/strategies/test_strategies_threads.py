"""CPU threads are shared between target and draft where both work at the same time, and only there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssd_lab.assembly.build import share_threads
from ssd_lab.config import EngineConfig
from ssd_lab.strategies.registry import registry

ASYNC_HEAD = {"strategy": "eagle3", "mode": "async"}
ASYNC = {"strategy": "async_tree"}
CASCADE = {"strategy": "cascade", "second": ASYNC_HEAD}


@pytest.mark.parametrize(
    ("strategy", "link", "device", "beside"),
    [
        (ASYNC, "auto", "cpu", True),
        (ASYNC, "thread", "cpu", True),
        (ASYNC, "inline", "cpu", False),
        (ASYNC, "auto", "cuda", True),
        (ASYNC_HEAD, "auto", "cpu", False),  # in the engine's own thread
        (ASYNC_HEAD, "thread", "cpu", True),
        (ASYNC_HEAD, "auto", "cuda", True),
        ({"strategy": "eagle3"}, "thread", "cpu", False),
        ({"strategy": "sync_chain"}, "thread", "cpu", False),
        (CASCADE, "auto", "cpu", False),
        (CASCADE, "thread", "cpu", True),
    ],
)
def test_who_works_beside_the_target(strategy: dict[str, Any], link: str, device: str, beside: bool) -> None:
    fields = dict(strategy)
    config = registry.config(fields.pop("strategy"), fields)
    assert config.works_beside(link, device) == beside
    assert not beside or config.overlaps
    if device == "cpu":
        _, draft = share_threads(EngineConfig(draft_link=link), config, torch.device(device))
        assert (draft is not None) == beside
