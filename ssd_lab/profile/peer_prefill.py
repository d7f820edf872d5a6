"""transformers' forward over prompts, on the same weights, for a time to set ours beside."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ssd_lab.common.device_guard import current
from ssd_lab.errors import ConfigError
from ssd_lab.models.files.config_json import config_to_json
from ssd_lab.models.inflate.geometry import Geometry
from ssd_lab.models.inflate.source import open_inflated, split_inflated
from ssd_lab.models.inflate.weights import InflatedWeights
from ssd_lab.models.loader import resolve_dtype
from ssd_lab.profile.prompts import REPEATS, shapes
from ssd_lab.profile.timing import seconds_per_call


class PeerPrefill:
    """A model as transformers loads it, with its default attention (sdpa). Raises ConfigError without transformers."""

    def __init__(self, source: str, *, dtype: torch.dtype, device: torch.device) -> None:
        try:
            from transformers import AutoModelForCausalLM
        except ImportError:
            raise ConfigError("times of transformers need the package transformers: pip install transformers") from None
        self._device = device
        inflated = split_inflated(source)
        if inflated is None:
            loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
            self._model: Any = loaded.to(device).eval()
        else:
            self._model = inflated_peer(*inflated, dtype, device)

    @torch.inference_mode()
    def seconds(self, count: int, length: int, *, repeats: int) -> float:
        """Of a forward over so many prompts of so many tokens, which keeps K/V and gives logits of the last tokens."""
        ids = torch.randint(3, 1000, (count, length), device=self._device)

        def forward() -> None:
            self._model(ids, use_cache=True, logits_to_keep=1)

        return seconds_per_call(forward, self._device, repeats=repeats)

    @property
    def longest(self) -> int:
        """Positions of the model."""
        return int(self._model.config.max_position_embeddings)


def peer_times(
    source: str, *, dtype: torch.dtype, device: torch.device, shapes: Sequence[tuple[int, int]], repeats: int
) -> dict[tuple[int, int], float]:
    """Seconds for so many prompts of so many tokens, of those that the model has positions for. Nothing of the model is
    left on the device.
    """
    peer = PeerPrefill(source, dtype=dtype, device=device)
    times = {shape: peer.seconds(*shape, repeats=repeats) for shape in shapes if shape[1] <= peer.longest}
    del peer
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return times


def inflated_peer(geometry: str | Geometry, small: str | Path, dtype: torch.dtype, device: torch.device) -> Any:
    """transformers' model of a published shape, with the weights of `load_inflated`, made tensor by tensor."""
    from transformers import AutoConfig, AutoModelForCausalLM

    opened = open_inflated(geometry, small)
    weights = InflatedWeights(opened.plan, opened.small.weights, dtype=dtype, device=device)
    name = str(dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(config_to_json(opened.plan.config, dtype=name))
        (Path(folder) / "config.json").write_text(text, encoding="utf-8")
        config = AutoConfig.from_pretrained(folder)
    with device:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    own = model.state_dict()
    for tensor in weights.names():
        own[tensor].copy_(weights.read(tensor))
    return model.eval()


def peer_seconds(source: str, place: str, dtype: str) -> dict[tuple[int, int], float]:
    """Of the prompts that `prompts` measures, on this device."""
    with current(place):
        return peer_times(
            source, dtype=resolve_dtype(dtype, place), device=torch.device(place), shapes=shapes(), repeats=REPEATS
        )
