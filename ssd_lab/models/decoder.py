"""What a decoder is to everything that runs one."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from ssd_lab.kernels.interface import Kernels
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.row_padding import RowPadding
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.group import Group
from ssd_lab.models.kv_cache import PagedKVCache

OUTSIDE_LOGIT = -1e30  # of tokens that are never drawn: finite, and a probability of exactly 0 at every temperature


class Decoder(Protocol):
    """Runs forwards over a paged KV cache. Holds weights, no state between calls; a family says how one is made.

    config: its shape; its vocabulary and positions may be a target's (`fitted_to`). num_tokens: ids 0 .. num_tokens - 1
    can be produced; those behind them only pad the embedding, and their logits are `OUTSIDE_LOGIT`. embedding: the
    table `[vocab, hidden]`, which an EAGLE head shares; it lies where all weights do. output_head: makes logits of
    normed hidden states. kernels: what the phases compute with, too. row_padding: tells whether a row's bits depend on
    that row alone (`invariant`). group: the ranks that share the model, of which this is one's part: its output head
    makes logits of that rank's token ids only, and its embedding is whole.
    """

    config: ModelConfig
    num_tokens: int
    embedding: torch.Tensor
    output_head: Linear
    kernels: Kernels[Any]
    row_padding: RowPadding
    group: Group | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    def linears(self) -> list[Linear]:
        """Every matrix product of a forward."""
        ...

    def forward(
        self, step: StepInput, cache: PagedKVCache, *, features: dict[int, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Compute the rows, write their K/V, return the normed hidden states `[batch, rows, hidden]`.

        features: a dictionary whose keys are layer numbers is filled with the residual stream at these layers' input
        `[batch, rows, hidden]`; the number after the last layer's means the final norm's input.
        """
        ...

    def plan(self, step: StepInput, cache: PagedKVCache) -> Any:
        """What the kernels of all layers share in a forward over this step."""
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits `[n, vocab]`, float32, of normed hidden states `[n, hidden]`."""
        ...

    def fitted_to(self, target: ModelConfig, num_tokens: int) -> Decoder:
        """This decoder as a draft for a target: its weights, the target's ids and at least its positions.

        num_tokens: ids that the target can produce. Ids past this decoder's own get no probability, which verification
        allows for; past its own context it guesses worse, and nothing else.
        """
        ...

    def first_layers(self, count: int) -> Decoder:
        """This decoder with so many of its layers: for what its steps hold and launch, which is no matter of how many.

        Its config's num_layers is as many. A family that does not say how runs all of them, which takes longer.
        """
        return self
