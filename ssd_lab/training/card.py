"""What the model cards of trained drafts have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Tokens per round on one set of prompts: of what was trained, and of another draft at the same k, if any."""

    prompts: int
    rounds: int
    ours: float
    agreement: float
    other_draft: float | None = None


@dataclass(frozen=True)
class CardFacts:
    """What a model card tells besides the geometry. data: where the prompts are from; seconds: of training."""

    target: str
    data: str
    documents: int
    tokens: int
    k: int
    measured: Mapping[str, Measured]
    hardware: str
    licence: str
    seconds: float


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """A table of two columns without a head."""
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]


def run_rows(facts: CardFacts, last: Mapping[str, float]) -> list[tuple[str, str]]:
    """Training text and length of the run; `last` is the last record of its log."""
    steps = f"{last['step']:.0f} steps, {last['tokens'] / 1e6:.1f} M tokens with padding"
    length = f"{steps}, {facts.seconds:.0f} s on {facts.hardware}"
    return [
        ("training text", f"{facts.documents:,} answers of the target itself, {facts.tokens:,} tokens with prompts"),
        ("prompts", facts.data),
        ("training", length),
        ("licence", facts.licence),
    ]


def measured_table(facts: CardFacts, what: str) -> list[str]:
    """The section on tokens per round of `what`; empty if nothing was measured."""
    if not facts.measured:
        return []
    compared = any(one.other_draft is not None for one in facts.measured.values())
    heads = ["prompts", "number", "rounds", what, *(["the other draft"] if compared else []), "agreement"]
    explained = (
        f"Greedy, k = {facts.k}, on the target's greedy answers to prompts that were not trained on: accepted draft "
        "tokens plus one, over rounds that the end of an answer did not cut. Agreement: positions where the likeliest "
        "first draft token is the target's."
    )
    lines = ["", "## Tokens per round", "", explained, "", _row(heads), _row(["---"] * len(heads))]
    for name, one in facts.measured.items():
        other = ["-" if one.other_draft is None else f"{one.other_draft:.2f}"] if compared else []
        lines.append(_row([name, str(one.prompts), str(one.rounds), f"{one.ours:.2f}", *other, f"{one.agreement:.1%}"]))
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
