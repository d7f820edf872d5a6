"""Runners: one model, its paged KV cache, one device. All that the phases call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any

import torch

from ssd_lab.decoding.sampling import SamplingBatch
from ssd_lab.execution.executor import EagerExecutor, Executor
from ssd_lab.execution.phase import Inputs, Outputs, Phase
from ssd_lab.kernels.interface import Kernels
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.rounds.drafted import Drafted
from ssd_lab.rounds.drawing import PLAIN, Drawing, draw


class Runner(ABC):
    """Runs forwards of one model over its own KV cache, and phases made of them through an executor.

    What a forward comes to, its *outlook*, is the model's matter: `logits_of` and `choose` make of it what others read.
    """

    def __init__(self, cache: PagedKVCache, device: torch.device, executor: Executor | None = None) -> None:
        self.cache = cache
        self.device = device
        self.executor = executor or EagerExecutor(device)
        self._constants: dict[Hashable, Any] = {}

    @property
    def block_size(self) -> int:
        """Tokens in one KV block."""
        return self.cache.block_size

    def run(self, phase: Phase[Any, Inputs, Outputs], inputs: Inputs) -> Outputs:
        """A phase through the executor; see `Executor.call`."""
        return self.executor.call(phase, self, inputs)

    def ready(self, phase: Phase[Any, Inputs, Outputs], inputs: Inputs) -> Callable[[], Outputs]:
        """The same in two steps; see `Executor.ready`."""
        return self.executor.ready(phase, self, inputs)

    def bound(self, context_length: int) -> int:
        """The context length to plan a phase for."""
        return self.executor.context_bound(context_length)

    def constant(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What a phase needs on the device whatever its inputs: made by its first run, before any capture."""
        if key not in self._constants:
            self._constants[key] = make()
        return self._constants[key]

    @property
    @abstractmethod
    def num_choices(self) -> int:
        """How many tokens `choose` can name."""

    @abstractmethod
    def logits_of(self, outlook: torch.Tensor) -> torch.Tensor:
        """Logits `[batch, rows, vocab]` over the target's tokens."""

    @property
    @abstractmethod
    def kernels(self) -> Kernels[Any]:
        """What picks and draws tokens."""

    def named_logits(self, outlook: torch.Tensor) -> torch.Tensor:
        """Logits `[batch, rows, num_choices]` over the tokens that `choose` can name."""
        return self.logits_of(outlook)

    def in_target_ids(self, drafted: Drafted) -> Drafted:
        """What was drawn from `named_logits`, in the target's ids."""
        return drafted

    def choose(
        self,
        outlook: torch.Tensor,
        sampling: SamplingBatch,
        uniforms: torch.Tensor | None,
        *,
        drawing: Drawing = PLAIN,
        fan_out: torch.Tensor | None = None,
    ) -> Drafted:
        """Draw one token a row, `[batch, rows]`, in the target's ids; arguments as in `draw`."""
        logits = self.named_logits(outlook)
        return self.in_target_ids(draw(self.kernels, logits, sampling, uniforms, drawing=drawing, fan_out=fan_out))


class StepRunner(Runner):
    """Of a model that reads tokens: a target, or a draft of its own. Its outlook is logits."""

    def __init__(
        self, decoder: Decoder, cache: PagedKVCache, device: torch.device, executor: Executor | None = None
    ) -> None:
        super().__init__(cache, device, executor)
        self.decoder = decoder

    def logits(self, step: StepInput, *, features: dict[int, torch.Tensor] | None = None) -> torch.Tensor:
        """One forward; logits `[batch, rows, vocab]`, float32. features: see `Decoder.forward`."""
        hidden = self.decoder.forward(step, self.cache, features=features)
        batch, rows = step.token_ids.shape
        return self.decoder.logits(hidden.view(batch * rows, -1)).view(batch, rows, -1)

    def last_logits(self, step: StepInput) -> torch.Tensor:
        """One forward; logits `[batch, 1, vocab]` of each sequence's last row only."""
        hidden = self.decoder.forward(step, self.cache)
        return self.decoder.logits(hidden[:, -1]).unsqueeze(1)

    def agreed(self, tensor: torch.Tensor) -> torch.Tensor:
        """What was decided, on every rank of a model that several share as on the first."""
        group = self.decoder.group
        return tensor if group is None else group.agreed(tensor)

    @property
    def num_choices(self) -> int:
        """The vocabulary."""
        return self.decoder.config.vocab_size

    def logits_of(self, outlook: torch.Tensor) -> torch.Tensor:
        """They are the outlook."""
        return outlook

    @property
    def kernels(self) -> Kernels[Any]:
        """The model's."""
        return self.decoder.kernels
