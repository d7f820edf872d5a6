"""How a model answers many prompts, and how one is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerSettings:
    """How a model answers many prompts. min_p: tokens less likely than this share of the likeliest are never drawn."""

    max_batch: int = 1024  # sequences decoded together on a GPU
    max_length_tokens: int = 512  # prompt and answer
    max_prompt_tokens: int = 300
    max_new_tokens: int = 224
    min_p: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """One optimisation run; the schedule follows the clock and the epochs, whichever ends first."""

    tokens_per_microbatch: int = 65_536
    microbatches_per_step: int = 2
    max_length_tokens: int = 512
    matrix_lr: float = 0.02  # Muon, for the matrices
    embedding_lr: float = 3e-3  # AdamW, for the embedding table and the norms
    weight_decay: float = 0.2
    warmup_steps: int = 100
    prompt_loss_weight: float = 0.1
    budget_s: float = 480.0
    max_epochs: float = 5.0  # a run ends here when the budget has not ended it: beyond, a small corpus is memorised
    max_steps: int | None = None  # a number replaces both, for a run that repeats exactly
    seed: int = 0
