"""Can this draft guess for this target?"""

from __future__ import annotations

from ssd_lab.errors import DraftMismatchError
from ssd_lab.models.loader import LoadedModel


def check_draft(target: LoadedModel, draft: LoadedModel) -> None:
    """Raise DraftMismatchError unless both models mean the same token by every id, saying which ids differ."""
    if target.config.vocab_size != draft.config.vocab_size:
        raise DraftMismatchError(
            f"the draft has {draft.config.vocab_size} token ids and the target {target.config.vocab_size}"
            f"{_first_difference(target, draft)}: take a draft of the same family"
        )
    difference = _first_difference(target, draft)
    if difference:
        raise DraftMismatchError(
            f"draft and target read the same ids as different text{difference}: take a draft of the same family"
        )


def _first_difference(target: LoadedModel, draft: LoadedModel) -> str:
    if target.tokenizer is None or draft.tokenizer is None:
        return ""
    ours, theirs = target.tokenizer.vocabulary(), draft.tokenizer.vocabulary()
    different = sorted(index for index in ours.keys() | theirs.keys() if ours.get(index) != theirs.get(index))
    if not different:
        return ""
    first = ", ".join(
        f"id {i} is {ours.get(i)!r} for the target and {theirs.get(i)!r} for the draft" for i in different[:3]
    )
    return f" ({len(different)} ids differ: {first})"
