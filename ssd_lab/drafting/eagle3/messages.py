"""What the engine's side sends to an EAGLE3 worker: rounds and prompts with the target's features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.links.messages import PrefillMessage, RoundMessage


@dataclass(frozen=True)
class EaglePrefill(PrefillMessage):
    """features: of each part `[tokens, feature_size]`, of the target's tokens at its `start` and after it; its
    token_ids: what follows each of these.
    """

    features: list[DeviceTensor]


@dataclass(frozen=True, kw_only=True)
class EagleRound(RoundMessage):
    """Fields as in `phases.head_reading.NewFeatures`, of every row of the round; features are on the device, the others
    on the host.
    """

    features: DeviceTensor
    token_ids: torch.Tensor
    counts: torch.Tensor

    def features_of(self, chosen: Sequence[int]) -> torch.Tensor:
        """The features of some rows, for work of the current stream."""
        features = self.features.here()
        if len(chosen) == len(self.counts):
            return features
        return torch.stack([features[row] for row in chosen])
