"""Which of the target's tokens a draft can name, when it knows only some of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.decoder import OUTSIDE_LOGIT


class DraftVocabulary:
    """The draft's ids 0 .. size - 1 and the target's ids that they stand for.

    A token outside is drafted with probability 0, so verification stays exact: where the target wants such a token, it
    comes from the residual distribution or as the recovery token.
    """

    def __init__(self, target_ids: torch.Tensor | None, target_size: int) -> None:
        """target_ids: `[size]`, int64, the target id of each draft id; None where both vocabularies are the same."""
        self.target_size = target_size
        self.size = target_size if target_ids is None else target_ids.shape[0]
        self._target_ids = target_ids

    @classmethod
    def from_offsets(
        cls, offsets: torch.Tensor, target_size: int, known: torch.Tensor | None = None, *, source: str
    ) -> DraftVocabulary:
        """From `d2t` `[size]` (target id = draft id + offset) and, to check it, `t2d` `[target_size]` (known or not).

        Raises ModelLoadError if ids fall outside the target's vocabulary, occur twice, or differ from `known`.
        """
        ids = offsets.to(torch.int64) + torch.arange(offsets.shape[0], device=offsets.device)
        if ids.numel() == 0 or int(ids.min()) < 0 or int(ids.max()) >= target_size:
            raise ModelLoadError(
                f"{source}: d2t leads to target ids {int(ids.min()) if ids.numel() else '(none)'}.."
                f"{int(ids.max()) if ids.numel() else '(none)'}, and the target has 0..{target_size - 1}: "
                "d2t holds offsets (target id = draft id + offset), and this head belongs to another target"
            )
        if torch.unique(ids).numel() != ids.numel():
            raise ModelLoadError(f"{source}: d2t maps two draft ids to the same target id: the checkpoint is damaged")
        if known is not None:
            expected = torch.zeros(target_size, dtype=torch.bool, device=ids.device).index_fill_(0, ids, True)
            if known.shape != expected.shape or not torch.equal(known.to(torch.bool), expected):
                raise ModelLoadError(f"{source}: t2d and d2t name different tokens: the checkpoint is damaged")
        if ids.shape[0] == target_size and torch.equal(ids, torch.arange(target_size, device=ids.device)):
            return cls(None, target_size)
        return cls(ids, target_size)

    @property
    def is_whole(self) -> bool:
        """Are draft ids the target's ids?"""
        return self._target_ids is None

    @property
    def target_ids(self) -> torch.Tensor:
        """Target id of each draft id, `[size]`, int64."""
        return torch.arange(self.target_size) if self._target_ids is None else self._target_ids

    def to_target(self, draft_ids: torch.Tensor) -> torch.Tensor:
        """Target ids of draft ids, any shape."""
        return draft_ids if self._target_ids is None else self._target_ids[draft_ids]

    def scatter_probs(self, probs: torch.Tensor) -> torch.Tensor:
        """Probabilities `[..., size]` as `[..., target_size]`; tokens outside get 0."""
        return self._scattered(probs, 0.0)

    def scatter_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits `[..., size]` as `[..., target_size]`; tokens outside get OUTSIDE_LOGIT, whose softmax is 0."""
        return self._scattered(logits, OUTSIDE_LOGIT)

    def _scattered(self, values: torch.Tensor, outside: float) -> torch.Tensor:
        if self._target_ids is None:
            return values
        if values.shape[-1] != self.size:
            raise ValueError(f"got {values.shape[-1]} draft tokens; this vocabulary has {self.size}")
        padded = F.pad(values, (0, self.target_size - self.size), value=outside)
        padded[..., : self.size] = outside
        return padded.index_copy_(-1, self._target_ids, values)
