"""Several tensors as one, so that they travel together: a round has a dozen small ones, each as slow as all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def packed(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Their bytes `[n]`, uint8: those of the largest numbers first, so that each is aligned."""
    return torch.cat([tensors[place].contiguous().flatten().view(torch.uint8) for place in _order(tensors)])


def unpacked(data: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Views of what `packed` made of these tensors, in their order."""
    order = _order(tensors)
    parts = data.split([tensors[place].numel() * tensors[place].element_size() for place in order])
    found = {
        place: part.view(tensors[place].dtype).view(tensors[place].shape)
        for place, part in zip(order, parts, strict=True)
    }
    return [found[place] for place in range(len(tensors))]


def carried(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """The tensors of one device on another one, by one copy, behind what both devices' current streams do."""
    return unpacked(packed(tensors).to(device, non_blocking=True), tensors)


def _order(tensors: Sequence[torch.Tensor]) -> list[int]:
    return sorted(range(len(tensors)), key=lambda place: -tensors[place].element_size())
