"""The step runner: one model, its paged KV cache, one device, one dtype. All that the phases call."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from ssd_lab.execution.executor import EagerExecutor, Executor, PhaseFunction, Tensors
from ssd_lab.execution.host_copy import sent
from ssd_lab.kernels.row_padding import LARGEST
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.rounds.rows import causal_step_at


class StepRunner:
    """Runs forwards of one model over its own KV cache, and phases made of them through an executor.

    The phases in `engine/phases/` are written against this class alone; whether they run eagerly or as CUDA graphs is
    the executor's matter.
    """

    def __init__(
        self, decoder: Decoder, cache: PagedKVCache, device: torch.device, executor: Executor | None = None
    ) -> None:
        self.decoder = decoder
        self.cache = cache
        self.device = device
        self.executor = executor or EagerExecutor(device)

    @property
    def block_size(self) -> int:
        """Tokens in one KV block."""
        return self.cache.block_size

    def call(self, name: str, static: Hashable, function: PhaseFunction, *inputs: torch.Tensor) -> Tensors:
        """A phase through the executor; see `Executor.call`."""
        return self.executor.call(name, static, function, *inputs)

    def logits(self, step: StepInput, *, features: dict[int, torch.Tensor] | None = None) -> torch.Tensor:
        """One forward; logits `[batch, rows, vocab]`, float32. features: see `Decoder.forward`."""
        hidden = self.decoder.forward(step, self.cache, features=features)
        batch, rows = step.token_ids.shape
        return self.decoder.logits(hidden.view(batch * rows, -1)).view(batch, rows, -1)

    def last_logits(self, step: StepInput) -> torch.Tensor:
        """One forward; logits `[batch, 1, vocab]` of each sequence's last row only."""
        hidden = self.decoder.forward(step, self.cache)
        return self.decoder.logits(hidden[:, -1]).unsqueeze(1)

    def wipe(self, blocks: list[int]) -> None:
        """Zero the K/V of these blocks: even what no row sees must be a number, since 0 times NaN is NaN."""
        index = sent(blocks, self.device, torch.int64)
        for layer in self.cache.layers:
            layer.view(self.cache.num_blocks, -1).index_fill_(0, index, 0.0)

    def prefill(
        self, token_ids: list[int], start: int, block_table: list[int], *, feature_layers: Sequence[int] = ()
    ) -> torch.Tensor | None:
        """Compute and keep K/V of `token_ids`, which stand at `start` and after it.

        feature_layers: returns the residual stream at these layers' inputs, side by side `[tokens, layers * hidden]`.
        """
        pieces = []
        for first in range(0, len(token_ids), LARGEST):  # so that K/V has the bits that a decoding step would give it
            tokens = sent([token_ids[first : first + LARGEST]], self.device)
            features = dict.fromkeys(feature_layers, tokens) if feature_layers else None
            step = causal_step_at(tokens, [start + first], [block_table], self.block_size)
            self.decoder.forward(step, self.cache, features=features)
            if features is not None:
                pieces.append(torch.cat([features[layer] for layer in feature_layers], -1)[0])
        return torch.cat(pieces) if pieces else None
