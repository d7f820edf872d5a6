"""Text to token ids and back, and the chat template, without importing transformers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from ssd_lab.errors import ConfigError
from ssd_lab.models.text.tokenizer_folder import TokenizerFolder

if TYPE_CHECKING:
    from ssd_lab.models.text.chat_template import ChatTemplate

_BYTE_PIECE = re.compile("<0x[0-9A-Fa-f]{2}>")


class Tokenizer:
    """A `tokenizers.Tokenizer` with its end tokens and chat template."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_token_ids: Sequence[int] = (),
        chat_template: str | None = None,
        special_tokens: dict[str, str] | None = None,
    ) -> None:
        self._backend = backend
        self.eos_token_ids = tuple(eos_token_ids)
        self._chat_template = chat_template
        self._special_tokens = dict(special_tokens or {})
        self._template: ChatTemplate | None = None
        _forget_training(backend)

    def __getstate__(self) -> dict[str, Any]:
        """A compiled template cannot be pickled or copied."""
        return {**self.__dict__, "_template": None}

    @classmethod
    def from_folder(cls, folder: Path, eos_token_ids: Sequence[int] = ()) -> Tokenizer:
        """From tokenizer.json and what lies beside it (see `tokenizer_folder`). eos_token_ids: of config.json."""
        files = TokenizerFolder(folder)
        backend = files.backend()
        return cls(
            backend,
            eos_token_ids=files.end_token_ids(backend, eos_token_ids),
            chat_template=files.chat_template(),
            special_tokens=files.special_tokens,
        )

    @property
    def vocab_size(self) -> int:
        """Token ids, special ones included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def num_ids(self) -> int:
        """One more than the largest id."""
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def has_chat_template(self) -> bool:
        """Can chat messages be rendered?"""
        return self._chat_template is not None

    def vocabulary(self) -> dict[int, str]:
        """The piece of each id."""
        return {index: piece for piece, index in self._backend.get_vocab(with_added_tokens=True).items()}

    @property
    def fingerprint(self) -> str:
        """A short digest of the pieces and their ids: equal for tokenizers that mean the same by every id."""
        pieces = json.dumps(sorted(self.vocabulary().items()), ensure_ascii=True)
        return hashlib.blake2b(pieces.encode(), digest_size=8).hexdigest()

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a text. add_special_tokens: with what the tokenizer puts before one (begin-of-text) unless it is
        there already.
        """
        encoding = self._backend.encode(text, add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        added = next((place for place, mark in enumerate(encoding.special_tokens_mask) if not mark), 0)
        return ids[added:] if ids[added : 2 * added] == ids[:added] else ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of token ids."""
        return self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        """What a token adds to a text before it, special ones as they are written: "▁a" keeps its space."""
        alone = self.decode([token_id], skip_special_tokens=False)
        added = self.decode([token_id, token_id], skip_special_tokens=False)[len(alone) :]
        return added if added.endswith(alone) else alone

    @cached_property
    def special_texts(self) -> dict[int, str]:
        """The special tokens as a prompt would have them; `decode` passes over them."""
        added = self._backend.get_added_tokens_decoder()
        return {index: token.content for index, token in added.items() if token.special}

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.special_texts)

    @cached_property
    def _byte_ids(self) -> frozenset[int]:
        decoder = self._backend.decoder
        if decoder is None or decoder.decode(["<0x41>"]) != "A":
            return frozenset()
        return frozenset(index for index, piece in self.vocabulary().items() if _BYTE_PIECE.fullmatch(piece))

    def is_silent(self, token_id: int) -> bool:
        """Does `decode` pass over this id: a special token, or one that no piece has?"""
        return token_id in self._special_ids or self._backend.id_to_token(token_id) is None

    def is_byte(self, token_id: int) -> bool:
        """Is its piece one byte ("<0xE2>"), joined with its neighbours to characters?"""
        return token_id in self._byte_ids

    def apply_chat(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """The text of a conversation, up to where the assistant answers.

        messages: dictionaries with `role` and `content` (a text, or a list of `{"type": "text", "text": ...}`). Raises
        PromptError for other messages, ConfigError where there is no template or it refuses them.
        """
        if self._chat_template is None:
            raise ConfigError("this tokenizer has no chat template: give plain text prompts (chat=False)")
        return self._compiled(self._chat_template).render(messages, add_generation_prompt=add_generation_prompt)

    def _compiled(self, text: str) -> ChatTemplate:
        from ssd_lab.models.text.chat_template import ChatTemplate  # here, so that jinja2 is loaded only for chats

        if self._template is None or self._template.text != text:
            self._template = ChatTemplate(text, self._special_tokens)
        return self._template

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and generation_config.json, as `from_folder` reads them."""
        self._backend.save(str(folder / "tokenizer.json"))
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self._special_tokens,
        }
        if self._chat_template is not None:
            config["chat_template"] = self._chat_template
        generation = {"eos_token_id": list(self.eos_token_ids)} if self.eos_token_ids else {}
        for name, document in (("tokenizer_config", config), ("generation_config", generation)):
            (folder / f"{name}.json").write_text(json.dumps(document, ensure_ascii=False, indent=2), encoding="utf-8")


def _forget_training(backend: tokenizers.Tokenizer) -> None:
    """Switch off what training scripts leave in a saved tokenizer: it would cut prompts, fill them up or split them
    at random.
    """
    backend.no_truncation()
    backend.no_padding()
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
