"""Where graphs find a phase's inputs and leave its outputs: memory of the phase's own, which no capture gets to use."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from ssd_lab.execution.structure import Tensors


class PhaseMemory:
    """One piece of memory for each place of a phase (its first input, its second output, ...), shared by its graphs of
    all shapes: only the last call's values are of any use. A graph that was captured before a larger one came keeps the
    smaller piece.
    """

    def __init__(self) -> None:
        self._pieces: dict[Hashable, torch.Tensor] = {}

    def like(self, place: Hashable, tensor: torch.Tensor) -> torch.Tensor:
        """Room for a tensor of this one's shape and dtype at this place, contiguous."""
        own = (place, tensor.dtype, tensor.device)
        piece = self._pieces.get(own)
        if piece is None or piece.numel() < tensor.numel():
            piece = self._pieces[own] = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
        return piece[: tensor.numel()].view(tensor.shape)


def leave(results: Sequence[torch.Tensor], outputs: Tensors) -> Tensors:
    """Copy what a phase computed to where its outputs lie, and return these. One kernel takes all tensors of a dtype,
    so that it costs a replay two or three small kernels, and large tensors one pass over them.
    """
    for dtype in {tensor.dtype for tensor in results}:
        pairs = [pair for pair in zip(outputs, results, strict=True) if pair[1].dtype == dtype]
        torch._foreach_copy_([output for output, _ in pairs], [result for _, result in pairs])
    return outputs
