"""Does the head that was saved draft as the head that was trained? Both forwards, step by step, on one text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.eagle3.loader import load_eagle3
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import load_model
from ssd_lab.training.eagle3_model import TrainableHead

_BLOCK = 16


@torch.no_grad()
def largest_difference(
    head: TrainableHead, folder: Path, target_folder: Path, tokens: Sequence[int], *, num_steps: int
) -> float:
    """The largest difference of a log-probability of the draft vocabulary, over rows and steps, in float32 on a CPU.

    The saved head runs over a paged cache, on features of the decoder that serves; the trained one runs unrolled. Its
    weights are rounded to bfloat16 first, as they were saved.
    """
    target = load_model(target_folder, dtype="float32", device="cpu")
    saved = load_eagle3(folder, target)
    trained = TrainableHead(head.config, head.layer_config)
    trained.load_state_dict({n: t.detach().cpu().bfloat16().float() for n, t in head.state_dict().items()})
    rows = len(tokens) - 1 - num_steps
    text = torch.tensor([list(tokens)])
    features: dict[int, Tensor] = {layer: torch.empty(0) for layer in saved.config.feature_layers}
    target_cache = PagedKVCache(target.config, 1 + -(-len(tokens) // _BLOCK), _BLOCK, torch.float32, "cpu")
    target.decoder.forward(_step(text, 0), target_cache, features=features)
    stacked = torch.cat([features[layer] for layer in saved.config.feature_layers], -1)
    cache = PagedKVCache(saved.config.layers, target_cache.num_blocks, _BLOCK, torch.float32, "cpu")
    carried = saved.combine(stacked[:, :rows])
    output_weight = target.decoder.output_head(torch.eye(target.config.hidden_size)).T  # the weight may be packed
    unrolled = trained.unrolled(stacked, text, target.decoder.embedding, num_steps)
    largest = 0.0
    for number, normed in enumerate(unrolled):
        first = 0 if number == 0 else rows - 1  # after the first step the last row drafts on alone
        inputs = text[:, first + 1 + number : rows + 1 + number]
        logits, carried = saved.forward(_step(inputs, first + number), cache, carried)
        carried = carried[:, -1:]
        expected = trained.logits(normed[:, first:rows], output_weight)
        gap = (logits.log_softmax(-1) - expected.float().log_softmax(-1)).abs().max()
        largest = max(largest, float(gap))
    return largest


def _step(token_ids: Tensor, start: int) -> StepInput:
    positions = start + torch.arange(token_ids.shape[1])[None]
    return StepInput(
        token_ids=token_ids,
        positions=positions,
        write_slots=positions + _BLOCK,
        block_tables=torch.arange(1, 2 + (start + token_ids.shape[1]) // _BLOCK)[None],
        prefix_lengths=positions + 1,
        context_length=start + token_ids.shape[1],
    )
