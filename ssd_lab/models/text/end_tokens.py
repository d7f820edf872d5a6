"""Which tokens end an answer: those that a checkpoint names, and the usual turn ends that files forget to name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# special tokens that end a turn wherever they exist
TURN_ENDS = frozenset(
    {
        "<|eot_id|>", "<|eom_id|>",  # Llama 3
        "<|im_end|>",  # ChatML: Qwen, SmolLM2, Yi
        "<|end|>",  # Phi 3
        "<end_of_turn>",  # Gemma
        "<|end_of_turn|>",  # OpenChat
        "<EOT>", "_<EOT>", "[EOT]", "<|EOT|>",  # Codestral, Kimi, DeepSeek Coder
        "<end_of_utterance>",  # SmolVLM
        "<|endofturn|>", "[|endofturn|]",  # HyperCLOVA, EXAONE
    }
)  # fmt: skip
# ends of a text, for a checkpoint that names no end at all
_TEXT_ENDS = frozenset({"</s>", "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<eos>", "[EOS]"})


def end_token_ids(named: Iterable[int | None], special_tokens: Mapping[str, int]) -> tuple[int, ...]:
    """All ids that end an answer. named: what the checkpoint says, ids it lacks as None. special_tokens: text -> id."""
    ends = {index for index in named if index is not None}
    ends |= {index for text, index in special_tokens.items() if text in TURN_ENDS}
    if not ends:
        ends = {index for text, index in special_tokens.items() if text in _TEXT_ENDS}
    return tuple(sorted(ends))
