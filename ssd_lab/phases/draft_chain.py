"""Draft chain: the draft decodes k tokens for every row, one forward each, all in one phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.sampling import SamplingBatch
from ssd_lab.execution.executor import Tensors
from ssd_lab.kernels.interface import Kernels
from ssd_lab.phases.drawing import PLAIN, Drawing
from ssd_lab.rounds.drafted import Drafted
from ssd_lab.rounds.rows import CausalRun, RowTensors
from ssd_lab.rounds.runner import StepRunner


def choose(
    kernels: Kernels[Any],
    logits: torch.Tensor,
    sampling: SamplingBatch,
    uniforms: torch.Tensor | None,
    *,
    record: bool,
    drawing: Drawing = PLAIN,
    fan_out: torch.Tensor | None = None,
) -> Drafted:
    """Draw one token a row from the draft's logits `[batch, rows, vocab]`; tokens are `[batch, rows]`.

    uniforms `[batch, rows]`: None if all rows are greedy. fan_out `[batch, rows]`: of each place, where `drawing` asks.
    """
    shape = logits.shape[:-1]
    if uniforms is None:
        picked, token_probs = kernels.greedy_pick(logits.flatten(0, -2), record)
        return Drafted(picked.view(shape), None, None if token_probs is None else token_probs.view(shape))
    raw = drawing.plain(logits, sampling)
    probs = drawing.modified(raw, fan_out)
    tokens = kernels.sample(probs.flatten(0, -2), uniforms.reshape(-1)).view(shape)
    token_probs = probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) if record else None
    return Drafted(tokens, probs, token_probs, raw if drawing.keeps_raw else None)


def draft_chain(
    runner: StepRunner,
    rows: RowTensors,
    k: int,
    *,
    record: bool,
    drawing: Drawing = PLAIN,
    fan_out: torch.Tensor | None = None,
) -> Drafted:
    """Draft k tokens after the committed ones.

    The first forward feeds the last two committed tokens: after a round in which all k were accepted the draft has not
    seen the last of them, and feeding a token again writes the same K/V again.

    fan_out `[batch, k]`: candidates that will be cached at each place, where `drawing` asks for them.
    """
    sampled = not rows.sampling.all_greedy
    longest = runner.executor.context_bound(rows.longest + k - 1)
    modified = (fan_out,) if sampled and drawing.modifies and fan_out is not None else ()

    def phase(*tensors: torch.Tensor) -> Tensors:
        own, rest = tensors[: len(tensors) - len(modified)], tensors[len(tensors) - len(modified) :]
        chain = _Chain(runner, rows.with_tensors(own), longest, sampled, record, drawing, rest[0] if rest else None)
        return chain.draft(k).tensors()

    static = (k, longest, sampled, sampled and rows.sampling.any_filter, record, drawing)
    outputs = runner.call("draft_chain", static, phase, *rows.tensors(), *modified)
    return Drafted.of_tensors(outputs, sampled=sampled, record=record, raw=drawing.keeps_raw)


@dataclass(frozen=True)
class _Chain:
    runner: StepRunner
    rows: RowTensors
    longest: int
    sampled: bool
    record: bool
    drawing: Drawing
    fan_out: torch.Tensor | None

    def draft(self, k: int) -> Drafted:
        """k forwards, one after the other."""
        rows, runner, device = self.rows, self.runner, self.rows.lengths.device
        uniforms = None
        if self.sampled:  # by the place where each draft token will stand
            places = rows.lengths[:, None] + torch.arange(k, device=device)
            uniforms = uniform(rows.sampling.seeds[:, None], places, Purpose.DRAFT)
        tokens = torch.stack([rows.previous_tokens, rows.last_tokens], 1)
        # one run of positions for all k forwards: the first takes two of them, each later one the next
        run = CausalRun.starting(rows.lengths - 2, k + 1, rows.tables, runner.block_size, longest=self.longest - k - 1)
        steps: list[Drafted] = []
        for i in range(k):
            start, stop = (0, 2) if i == 0 else (i + 1, i + 2)
            logits = runner.last_logits(run.step(tokens, start, stop))
            step = choose(
                *(runner.decoder.kernels, logits, rows.sampling),
                None if uniforms is None else uniforms[:, i : i + 1],
                record=self.record,
                drawing=self.drawing,
                fan_out=None if self.fan_out is None else self.fan_out[:, i : i + 1],
            )
            steps.append(step.row(0))
            tokens = step.tokens
        return Drafted.joined(steps)
