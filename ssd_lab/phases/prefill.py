"""Prompts: K/V of known tokens, of many texts in one forward. Shapes that recur may become graphs, after a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ssd_lab.execution.host_copy import sent
from ssd_lab.execution.phase import Phase
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.rounds.head_runner import HeadRunner
from ssd_lab.rounds.prompt_lines import Line, PromptLines, PromptPart, PromptStep, cut_into_steps
from ssd_lab.rounds.runner import StepRunner

USES_BEFORE_CAPTURE = 2  # a capture takes as long as a dozen forwards that are launched kernel by kernel


@dataclass(frozen=True)
class PrefillPhase(Phase[StepRunner, PromptLines, torch.Tensor | None]):
    """Compute and keep K/V of a step's tokens, planned for contexts of so many tokens; returns the residual stream at
    `feature_layers`' inputs, side by side `[lines, rows, layers * hidden]`, None without any.
    """

    name: ClassVar[str] = "prefill"
    uses_before_capture: ClassVar[int] = USES_BEFORE_CAPTURE

    context: int
    feature_layers: tuple[int, ...] = ()

    def run(self, runner: StepRunner, inputs: PromptLines) -> torch.Tensor | None:
        """One forward."""
        step = inputs.step(runner.block_size, self.context)
        features = dict.fromkeys(self.feature_layers, step.token_ids) if self.feature_layers else None
        runner.decoder.forward(step, runner.cache, features=features)
        return None if features is None else torch.cat([features[layer] for layer in self.feature_layers], -1)


@dataclass(frozen=True)
class LongPrefillPhase(Phase[StepRunner, PromptLines, torch.Tensor | None]):
    """The same of so many rows that the device is busy for longer than they take to launch, in any shape."""

    name: ClassVar[str] = "long_prefill"
    captured: ClassVar[bool] = False

    context: int
    feature_layers: tuple[int, ...] = ()

    def run(self, runner: StepRunner, inputs: PromptLines) -> torch.Tensor | None:
        """One forward."""
        return PrefillPhase(self.context, self.feature_layers).run(runner, inputs)


@dataclass(frozen=True)
class HeadPrefillInputs:
    """features `[lines, rows, feature_size]` of the step's places, each beside the token that follows it."""

    lines: PromptLines
    features: torch.Tensor


@dataclass(frozen=True)
class HeadPrefillPhase(Phase[HeadRunner, HeadPrefillInputs, None]):
    """Compute and keep K/V of a head's rows, planned for contexts of so many tokens: a head is launched in no time."""

    name: ClassVar[str] = "head_prefill"
    captured: ClassVar[bool] = False

    context: int

    def run(self, runner: HeadRunner, inputs: HeadPrefillInputs) -> None:
        """One forward."""
        runner.conditioned(inputs.lines.step(runner.block_size, self.context), inputs.features)


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
    runner: StepRunner, parts: Sequence[PromptPart], *, feature_layers: tuple[int, ...] = ()
) -> list[torch.Tensor] | None:
    """Compute and keep K/V of parts of texts. Returns for each part the residual stream at `feature_layers`' inputs
    `[tokens, layers * hidden]`, None without any.
    """
    pieces: list[list[torch.Tensor]] = [[] for _ in parts]
    for step in _steps(runner, parts, runner.decoder.row_padding.together):
        kind = PrefillPhase if step.recurs else LongPrefillPhase
        lines = step.placed(parts, runner.block_size, runner.device)
        features = runner.run(kind(step.context, feature_layers), lines)
        if features is None:
            continue
        for part, first, own in step.of_parts():
            rows = features[first : first + len(own)].flatten(0, 1)
            # a copy: the next step leaves its own in the same place
            pieces[part].append(rows[: sum(line.count for line in own)].clone())
    return [torch.cat(own) for own in pieces] if feature_layers else None


def head_prefill(runner: HeadRunner, parts: Sequence[PromptPart], features: Sequence[torch.Tensor]) -> None:
    """Compute and keep K/V of a head's rows: `features` `[tokens, feature_size]` of the places of each part, each
    beside the token that follows it, which is what the part holds.
    """
    for step in _steps(runner, parts, runner.head.row_padding.together):
        own = [_in_lines(features[part], lines, step.rows) for part, _, lines in step.of_parts()]
        own.append(own[0].new_zeros(step.size - len(step.lines), *own[0].shape[1:]))
        lines = step.placed(parts, runner.block_size, runner.device)
        runner.run(HeadPrefillPhase(step.context), HeadPrefillInputs(lines, torch.cat(own)))


def _steps(runner: StepRunner | HeadRunner, parts: Sequence[PromptPart], together: int) -> list[PromptStep]:
    """No more rows than may be computed together, so that K/V has the bits that a round would give it."""
    return cut_into_steps(parts, together, recurring=runner.executor.captures)


def _in_lines(features: torch.Tensor, lines: list[Line], rows: int) -> torch.Tensor:
    """A part's features `[lines, rows, feature_size]`, padded with zeros."""
    start, stop = lines[0].first, lines[-1].first + lines[-1].count
    padded = F.pad(features[start:stop], (0, 0, 0, len(lines) * rows - (stop - start)))
    return padded.view(len(lines), rows, -1)


def wipe(runner: StepRunner, blocks: Sequence[int]) -> None:
    """See `WipePhase`."""
    runner.run(WipePhase(), sent(list(blocks), runner.device, torch.int64))
