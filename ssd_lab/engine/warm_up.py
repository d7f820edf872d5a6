"""What the first round of a shape prepares, prepared before requests come: by rounds of such shapes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ssd_lab.config import SamplingParams
from ssd_lab.engine.engine import Engine
from ssd_lab.execution.graphs import context_bucket
from ssd_lab.phases.prefill import USES_BEFORE_CAPTURE
from ssd_lab.rounds.prompt_lines import GRAPH_LINE, GRAPH_ROWS

ROUNDS = 8  # of each shape at least; a lookahead that is chosen while running has tried both of its first ones by then
PROMPT = 64  # tokens of the longest prompt where the context need not be longer, and at most of all others


@dataclass(frozen=True)
class RoundShape:
    """Rounds of so many sequences, the longest of which has a prompt of so many tokens, all sampled like this."""

    rows: int
    prompt_length: int
    params: SamplingParams


def shapes_of_rounds(
    engine: Engine, batch_sizes: Iterable[int], longest: int, params: Sequence[SamplingParams]
) -> list[RoundShape]:
    """The shapes for which a run of such batches, with texts of at most `longest` tokens, captures graphs. Large ones
    first: what graphs leave their results in is then made once.
    """
    limits = engine.limits
    rows = {min(engine.bucket(size), engine.max_batch) for size in batch_sizes}
    bound, wanted = context_bucket(1), context_bucket(min(longest, limits.max_model_len) + limits.reserved)
    lengths = [min(PROMPT, bound // 2)]
    while (bound := 2 * bound) <= wanted:
        lengths.append(bound // 2 + 1)
    most = max(1, limits.max_model_len - _rounds(engine) * (limits.lookahead + 1))
    kinds = {_kind(own): own for own in params}
    return [
        RoundShape(size, length, own)
        for own in kinds.values()
        for length in sorted({min(length, most) for length in lengths}, reverse=True)
        for size in sorted(rows, reverse=True)
    ]


def shapes_of_prompts(engine: Engine, batch: int, longest: int) -> list[list[int]]:
    """Lengths of prompts that are computed together, one list for each number of rows that a run captures a graph for:
    of at most `batch` prompts of at most `longest` tokens.
    """
    found, before = [], 0
    longest = min(longest, engine.limits.max_model_len) - 1
    for bucket in GRAPH_ROWS:
        for lines in range(bucket // GRAPH_LINE, before // GRAPH_LINE, -1):
            prompts = min(batch, engine.max_batch, lines)
            lengths = [(lines + row) // prompts * GRAPH_LINE - GRAPH_LINE + 1 for row in range(prompts)]
            if max(lengths) < longest and sum(lengths) <= engine.most_prompt_tokens:
                found.append([length + 1 for length in lengths])
                break
        before = bucket
    return found


def run_prompts(engine: Engine, lengths: list[int]) -> None:
    """Prompts of these lengths, of random tokens, until their shape is captured; nothing of them is left. Raises
    ConfigError while the engine has requests.
    """
    draw, params = random.Random(0), _rehearsed(SamplingParams(), 1)
    for _ in range(USES_BEFORE_CAPTURE + 1):
        with engine.rehearsal() as recording:
            for length in lengths:
                tokens = [draw.randrange(engine.limits.vocab_size) for _ in range(length)]
                engine.submit(tokens, params, seed=0, recording=recording)
            while engine.has_work:
                engine.step()


def run_shape(engine: Engine, shape: RoundShape) -> None:
    """Some rounds of this shape, of random tokens. Nothing of them is left: no record, no cached prefix, nothing
    learned. Raises ConfigError while the engine has requests.
    """
    draw = random.Random(0)
    limits = engine.limits
    lengths = [shape.prompt_length, *[min(shape.prompt_length, PROMPT)] * (shape.rows - 1)]
    with engine.rehearsal() as recording:
        for length in lengths:
            tokens = [draw.randrange(limits.vocab_size) for _ in range(length)]
            most = min(_rounds(engine) * (limits.lookahead + 1), limits.max_model_len - length)
            engine.submit(tokens, _rehearsed(shape.params, most), seed=0, recording=recording)
        wanted, steps = _rounds(engine), 0
        while engine.has_work and wanted and steps < sum(lengths) + ROUNDS:  # whatever the memory allows
            wanted -= len(engine.step()) == shape.rows
            steps += 1


def _rounds(engine: Engine) -> int:
    """Enough for drafts of every length, if those are tried in turn."""
    return max(ROUNDS, engine.limits.lookahead + 1)


def _kind(params: SamplingParams) -> tuple[bool, bool, bool]:
    """What of these settings decides which kernels run."""
    filters = params.top_k > 0 or params.top_p < 1 or params.min_p > 0
    return params.temperature > 0, params.temperature > 0 and filters, params.logprobs > 0


def _rehearsed(params: SamplingParams, max_tokens: int) -> SamplingParams:
    changes = {"max_tokens": max_tokens, "ignore_eos": True, "stop": [], "stop_token_ids": []}
    return params.model_copy(update=changes)
