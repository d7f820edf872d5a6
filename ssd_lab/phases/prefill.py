"""Prompts: K/V of known tokens, computed as they are, without a graph, since no two have the same length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ssd_lab.execution.host_copy import sent
from ssd_lab.execution.phase import Phase
from ssd_lab.kernels.row_padding import LARGEST
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.rounds.head_runner import HeadRunner
from ssd_lab.rounds.rows import causal_step_at
from ssd_lab.rounds.runner import StepRunner


@dataclass(frozen=True)
class PrefillPhase(Phase[StepRunner, StepInput, torch.Tensor | None]):
    """Compute and keep K/V of a step's tokens; returns the residual stream at `feature_layers`' inputs, side by side
    `[batch, tokens, layers * hidden]`, None without any.
    """

    name: ClassVar[str] = "prefill"
    captured: ClassVar[bool] = False

    feature_layers: tuple[int, ...] = ()

    def run(self, runner: StepRunner, inputs: StepInput) -> torch.Tensor | None:
        """One forward."""
        features = dict.fromkeys(self.feature_layers, inputs.token_ids) if self.feature_layers else None
        runner.decoder.forward(inputs, runner.cache, features=features)
        return None if features is None else torch.cat([features[layer] for layer in self.feature_layers], -1)


@dataclass(frozen=True)
class HeadPrefillInputs:
    """features `[batch, tokens, feature_size]` of the step's places, each beside the token that follows it."""

    step: StepInput
    features: torch.Tensor


@dataclass(frozen=True)
class HeadPrefillPhase(Phase[HeadRunner, HeadPrefillInputs, None]):
    """Compute and keep K/V of a head's rows."""

    name: ClassVar[str] = "head_prefill"
    captured: ClassVar[bool] = False

    def run(self, runner: HeadRunner, inputs: HeadPrefillInputs) -> None:
        """One forward."""
        runner.conditioned(inputs.step, inputs.features)


@dataclass(frozen=True)
class ScorePhase(Phase[StepRunner, StepInput, torch.Tensor]):
    """Logits `[batch, tokens, vocab]` after each of a step's tokens."""

    name: ClassVar[str] = "score"
    captured: ClassVar[bool] = False

    def run(self, runner: StepRunner, inputs: StepInput) -> torch.Tensor:
        """One forward."""
        return runner.logits(inputs)


@dataclass(frozen=True)
class WipePhase(Phase[StepRunner, torch.Tensor, None]):
    """Zero the K/V of some blocks `[n]`: even what no row sees must be a number, since 0 times NaN is NaN."""

    name: ClassVar[str] = "wipe"
    captured: ClassVar[bool] = False

    def run(self, runner: StepRunner, inputs: torch.Tensor) -> None:
        """In every layer."""
        for layer in runner.cache.layers:
            layer.view(runner.cache.num_blocks, -1).index_fill_(0, inputs, 0.0)


def prefill(
    runner: StepRunner,
    token_ids: Sequence[int],
    start: int,
    block_table: Sequence[int],
    *,
    feature_layers: tuple[int, ...] = (),
) -> torch.Tensor | None:
    """Compute and keep K/V of `token_ids`, which stand at `start` and after it; returns as `PrefillPhase`, of the one
    sequence `[tokens, layers * hidden]`.
    """
    phase, pieces = PrefillPhase(feature_layers), []
    for first in range(0, len(token_ids), LARGEST):  # so that K/V has the bits that a decoding step would give it
        tokens = sent([token_ids[first : first + LARGEST]], runner.device)
        features = runner.run(phase, causal_step_at(tokens, [start + first], [block_table], runner.block_size))
        if features is not None:
            pieces.append(features[0])
    return torch.cat(pieces) if pieces else None


def head_prefill(
    runner: HeadRunner, token_ids: Sequence[int], start: int, block_table: Sequence[int], features: torch.Tensor
) -> None:
    """Compute and keep K/V of a head's rows `start` and after it: `features` `[rows, feature_size]` of the tokens
    there, each beside the token that follows it (`token_ids`).
    """
    for first in range(0, len(token_ids), LARGEST):  # so that K/V has the bits that a round would give it
        tokens = sent([token_ids[first : first + LARGEST]], runner.device)
        step = causal_step_at(tokens, [start + first], [block_table], runner.block_size)
        runner.run(HeadPrefillPhase(), HeadPrefillInputs(step, features[None, first : first + LARGEST]))


def wipe(runner: StepRunner, blocks: Sequence[int]) -> None:
    """See `WipePhase`."""
    runner.run(WipePhase(), sent(list(blocks), runner.device, torch.int64))
