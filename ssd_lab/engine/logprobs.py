"""Log-probabilities of emitted tokens, for requests that ask."""

from __future__ import annotations

from typing import Any

import torch


def token_logprobs(logits: torch.Tensor, tokens: list[int], count: int) -> list[dict[str, Any]]:
    """For each token its log-probability and the `count` likeliest, given the target's logits `[k + 1, vocab]`.

    Row i predicts token i. Natural logarithm, temperature 1, no filter.
    """
    logprobs = torch.log_softmax(logits[: len(tokens)], -1)
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None]).squeeze(1).tolist()
    best = logprobs.topk(min(count, logprobs.shape[-1]), -1)
    tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        {"token_id": token, "logprob": value, "top": dict(zip(ids, values, strict=True))}
        for token, value, (ids, values) in zip(tokens, chosen, tops, strict=True)
    ]
