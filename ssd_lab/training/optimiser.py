"""Muon for the matrices and AdamW for the rest, with a learning rate that follows the progress of the run."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssd_lab.training.config import TrainConfig
from ssd_lab.training.model import TrainableLlama


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Roughly orthogonal matrices [batch, rows, columns] by Newton-Schulz (Jordan et al., 2024, Muon)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """Momentum, then orthogonalisation; matrices of one shape are handled together."""

    def __init__(self, parameters: Sequence[Tensor], *, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        groups: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            groups[parameter.shape].append(parameter)
        self.groups = list(groups.values())
        self.buffers = [torch.zeros(len(g), *g[0].shape, device=g[0].device) for g in self.groups]
        self.momentum, self.weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of all matrices."""
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradient = torch.stack([p.grad for p in group if p.grad is not None])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(buffer, self.momentum))
            rows, columns = group[0].shape
            scale = lr * max(1.0, rows / columns) ** 0.5
            torch._foreach_mul_(group, 1 - lr * self.weight_decay)
            torch._foreach_add_(group, list(update.to(group[0].dtype).unbind(0)), alpha=-scale)


class Optimiser:
    """Both update rules and the schedule of one model. matrices: those parameters that Muon updates."""

    def __init__(self, model: nn.Module, matrices: Sequence[Tensor], config: TrainConfig) -> None:
        self.model, self.config = model, config
        others = [p for p in model.parameters() if p.requires_grad and not any(p is m for m in matrices)]
        self.muon = Muon(matrices, weight_decay=config.weight_decay)
        fused = others[0].is_cuda
        self.adam = torch.optim.AdamW(others, lr=1.0, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, fused=fused)
        self.parameters = [*matrices, *others]

    @classmethod
    def of_llama(cls, model: TrainableLlama, config: TrainConfig) -> Optimiser:
        """Muon for the layers' matrices, AdamW for the embedding and the norms."""
        body = [p for layer in model.model.layers for p in layer.parameters()]
        return cls(model, [p for p in body if p.ndim == 2], config)

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on as if it had not stopped."""
        return {"muon": self.muon.buffers, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for buffer, saved in zip(self.muon.buffers, state["muon"], strict=True):
            buffer.copy_(saved)
        self.adam.load_state_dict(state["adam"])

    def step(self, lr_factor: float) -> None:
        """Update with both learning rates scaled by `lr_factor`, and clear the gradients."""
        self.muon.step(self.config.matrix_lr * lr_factor)
        self.adam.param_groups[0]["lr"] = self.config.embedding_lr * lr_factor
        self.adam.step()
        for parameter in self.parameters:
            parameter.grad = None


class TrainingSchedule:
    """Progress from 0 to 1 by steps, epochs or the clock, and the learning-rate factor at that progress."""

    def __init__(self, config: TrainConfig, *, corpus_tokens: int) -> None:
        self.config = config
        self.tokens_per_step = config.tokens_per_microbatch * config.microbatches_per_step
        self.corpus_tokens = corpus_tokens
        self.started_s = time.monotonic()
        self.step_number = 0

    @property
    def elapsed_s(self) -> float:
        """Time since the run began."""
        return time.monotonic() - self.started_s

    @property
    def tokens(self) -> int:
        """Tokens seen, padding included."""
        return self.step_number * self.tokens_per_step

    @property
    def epochs(self) -> float:
        """Passes over the corpus."""
        return self.tokens / self.corpus_tokens

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        if self.config.max_steps is not None:
            return self.step_number / self.config.max_steps
        return min(1.0, max(self.elapsed_s / self.config.budget_s, self.epochs / self.config.max_epochs))

    def resume(self, step_number: int, elapsed_s: float) -> None:
        """Go on where an earlier run was."""
        self.step_number = step_number
        self.started_s = time.monotonic() - elapsed_s

    def record(self) -> dict[str, float]:
        """Where the run stands, for a log."""
        return {"step": self.step_number, "tokens": self.tokens, "epochs": self.epochs, "seconds": self.elapsed_s}

    def advance(self) -> float:
        """Count a step and return its learning-rate factor: warm-up, and half a cosine to zero."""
        progress = self.progress
        self.step_number += 1
        warm = min(1.0, self.step_number / max(1, self.config.warmup_steps))
        return warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress)))
