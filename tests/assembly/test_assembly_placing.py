"""What callers say of devices: what it comes to, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ssd_lab
from ssd_lab.assembly.placing import placed
from ssd_lab.common.validation import validated
from ssd_lab.config import EngineConfig
from ssd_lab.devices import DevicePlacement
from ssd_lab.errors import ConfigError
from ssd_lab.strategies import registry


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine says that it has four."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


def placement_of(strategy: str, **fields: Any) -> DevicePlacement:
    """What these fields come to."""
    return placed(validated(EngineConfig, fields, name="engine"), registry.config(strategy, {}))[1].asked


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("strategy", "gpus", "expected"),
    [
        ("async_tree", 1, "target=cuda:0"),
        ("async_tree", 2, "target=cuda:0 draft=cuda:1"),
        ("async_tree", 3, "target=cuda:0,cuda:1 draft=cuda:2"),
        ("sync_chain", 2, "target=cuda:0,cuda:1"),
        ("autoregressive", 4, "target=cuda:0,cuda:1,cuda:2,cuda:3"),
        ("eagle3", 2, "target=cuda:0,cuda:1"),
    ],
)
def test_the_last_gpu_drafts_where_the_draft_works_beside_the_target(strategy: str, gpus: int, expected: str) -> None:
    assert str(placement_of(strategy, gpus=gpus)) == expected


def test_a_placement_is_the_same_as_a_dictionary_and_as_a_text() -> None:
    as_text = placement_of("async_tree", placement="target=cpu draft=cpu")
    assert as_text == placement_of("async_tree", placement={"target": ["cpu"], "draft": ["cpu"]})
    assert DevicePlacement.model_validate(str(as_text)) == as_text
    assert DevicePlacement.model_validate("target=cuda:0 draft=cuda:1,cuda:1").draft == ("cuda:1", "cuda:1")
    assert placement_of("async_tree", device="cpu") == DevicePlacement(target=("cpu",))


def test_the_config_of_a_run_can_be_given_to_another() -> None:
    config, places = placed(EngineConfig(placement="target=cpu draft=cpu"), registry.config("async_tree", {}))
    assert placed(EngineConfig(**config.model_dump()), registry.config("async_tree", {})) == (config, places)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gpus": 5}, r"gpus=5 .* 4 GPUs are here \(cuda:0, cuda:1, cuda:2, cuda:3\)"),
        ({"gpus": 0}, r"gpus=0: .* greater than or equal to 1"),
        ({"gpus": 2, "device": "cpu"}, "device and gpus all say which devices"),
        ({"gpus": 2, "placement": "target=cpu"}, "gpus and placement all say"),
        ({"placement": {"target": ["cuda:0", "cuda:0"]}}, "cuda:0 stands there twice"),
        ({"placement": "target=cuda:0 draft=cuda:1,cuda:1 draft_parallel=tensor"}, "cuda:1 stands there twice"),
        ({"placement": {"target": ["cuda:0"], "draft": ["cuda:7"]}}, r"names cuda:7, and 4 GPUs are here"),
        ({"placement": {"targets": ["cpu"]}}, "it has 'targets'; give target, and perhaps draft and draft_parallel"),
        ({"placement": {"target": []}}, "it names no device"),
        ({"placement": {"target": ["gpu0"]}}, "'gpu0' is no device: write cuda:0, cuda:1, ... or cpu"),
        ({"placement": {"target": ["cpu"], "draft": ["cuda:1"]}}, "GPUs and CPUs are mixed"),
        ({"placement": "cpu"}, "write it as target=cuda:0,cuda:1 draft=cuda:2"),
        ({"placement": {"target": ["cpu"], "draft": ["cpu"], "draft_parallel": "tensor"}}, "draft names 1: name two"),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_what_cannot_be_is_refused_in_words(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        placement_of("async_tree", **fields)


@pytest.mark.full
def test_a_run_says_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with ssd_lab.LLM(placement={"target": ["cpu"], "draft": ["cpu"]}, progress=False) as llm:
        assert llm.placement.draft == ("cpu",)
        result = llm.run("Hello", ssd_lab.SamplingParams(max_tokens=4))
    assert result.trace.meta["engine"]["placement"]["draft"] == ["cpu"]
