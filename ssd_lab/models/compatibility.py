"""Can this draft guess for this target?"""

from __future__ import annotations

from ssd_lab.errors import DraftMismatchError
from ssd_lab.models.loader import LoadedModel
from ssd_lab.models.text.tokenizer import Tokenizer


def check_draft(target: LoadedModel, draft: LoadedModel) -> None:
    """Raise DraftMismatchError unless both models mean the same token by every id, saying which ids differ.

    Embeddings padded to different sizes do not matter: what counts are the tokenizers. Where one of them is missing
    the sizes must be equal.
    """
    sizes = {"target": target.config.vocab_size, "draft": draft.config.vocab_size}
    if target.tokenizer is not None and draft.tokenizer is not None:
        difference = _first_difference(target.tokenizer, draft.tokenizer)
        if difference:
            raise DraftMismatchError(
                f"draft and target read the same ids as different text{difference}: take a draft of the same family"
            )
    elif sizes["target"] != sizes["draft"]:
        whose = "target" if target.tokenizer is None else "draft"
        raise DraftMismatchError(
            f"the draft has {sizes['draft']} token ids and the target {sizes['target']}, and without the {whose}'s "
            "tokenizer nothing tells whether only the padding differs: give it its tokenizer.json, or take a draft of "
            "the same family"
        )


def _first_difference(target: Tokenizer, draft: Tokenizer) -> str:
    ours, theirs = target.vocabulary(), draft.vocabulary()
    different = sorted(index for index in ours.keys() | theirs.keys() if ours.get(index) != theirs.get(index))
    if not different:
        return ""
    first = ", ".join(
        f"id {i} is {ours.get(i)!r} for the target and {theirs.get(i)!r} for the draft" for i in different[:3]
    )
    return f" ({len(different)} ids differ: {first})"
