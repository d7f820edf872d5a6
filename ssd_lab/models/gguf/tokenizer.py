"""The byte-level BPE tokenizer that a GGUF file holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, processors

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.gguf.words import WordRule, word_rule
from ssd_lab.models.text.end_tokens import TURN_ENDS, end_token_ids
from ssd_lab.models.text.tokenizer import Tokenizer
from ssd_lab.models.text.tokenizer_folder import default_template

_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp's token types that are matched whole
_SPECIAL_NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_TEMPLATE = "tokenizer.chat_template"


class GgufTokenizer:
    """entry: a file's entry by key, or the default given with it. source: the file's name, for errors."""

    def __init__(self, entry: Callable[..., Any], source: str) -> None:
        self._entry = entry
        self._source = source

    def read(self) -> Tokenizer:
        """The tokenizer, with its end tokens and chat template. Raises ModelLoadError for other kinds."""
        kind = self._entry("tokenizer.ggml.model")
        if kind != "gpt2":
            raise ModelLoadError(
                f"{self._source}: its tokenizer is {kind!r}; only byte-level BPE ('gpt2') is read: "
                "load the safetensors checkpoint instead"
            )
        pieces: list[str] = self._entry("tokenizer.ggml.tokens")
        rule = word_rule(self._entry("tokenizer.ggml.pre", "default"), self._source)
        vocabulary = {piece: index for index, piece in enumerate(pieces)}
        backend = tokenizers.Tokenizer(self._model(vocabulary, rule))
        if (normalizer := rule.normalizer()) is not None:
            backend.normalizer = normalizer
        backend.pre_tokenizer = rule.pre_tokenizer()
        backend.decoder = decoders.ByteLevel()
        special = self._add_tokens(backend, pieces)
        ids = {ours: self._id(theirs, pieces) for theirs, ours in _SPECIAL_NAMES.items()}
        named = {name: pieces[index] for name, index in ids.items() if index is not None}
        if "bos_token" in named and self._entry("tokenizer.ggml.add_bos_token", rule.begins):
            _begin_with(backend, named["bos_token"])
        ends = (self._id(end, pieces) for end in ("eos", "eot", "eom"))
        return Tokenizer(
            backend,
            eos_token_ids=end_token_ids(ends, {piece: vocabulary[piece] for piece in special}),
            chat_template=self._template(),
            special_tokens=named,
        )

    def _model(self, vocabulary: dict[str, int], rule: WordRule) -> models.BPE:
        merges = [tuple(merge.split(" ", 1)) for merge in self._entry("tokenizer.ggml.merges")]
        try:
            return models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule.takes_whole_words)
        except Exception as error:  # the library raises a plain Exception for everything
            raise ModelLoadError(f"{self._source}: its tokenizer is damaged ({error}): download it again") from error

    def _id(self, name: str, pieces: list[str]) -> int | None:
        """The id of a named token; None if there is none, or the id is beyond the vocabulary."""
        index = self._entry(f"tokenizer.ggml.{name}_token_id", None)
        return index if index is not None and 0 <= index < len(pieces) else None

    def _add_tokens(self, backend: tokenizers.Tokenizer, pieces: list[str]) -> list[str]:
        """Tokens that are matched whole; returns the special ones. A turn's end is special whatever type the file
        gives it.
        """
        types = self._entry("tokenizer.ggml.token_type", None) or [0] * len(pieces)
        kinds = dict(zip(pieces, types, strict=False))
        special = [piece for piece, kind in kinds.items() if kind == _CONTROL or piece in TURN_ENDS]
        in_text = [piece for piece, kind in kinds.items() if kind == _USER_DEFINED and piece not in TURN_ENDS]
        backend.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in special])
        backend.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in in_text])  # as <think>
        return special

    def _template(self) -> str | None:
        """The file's template, else the first of its named ones that a plain conversation can use."""
        plain = self._entry(_TEMPLATE, None)
        names: Iterable[str] = self._entry(f"{_TEMPLATE}s", None) or ()
        named = {name: self._entry(f"{_TEMPLATE}.{name}", None) for name in names}
        texts = {name: text for name, text in named.items() if text is not None}
        return plain if plain is not None else default_template(texts, self._source)


def _begin_with(backend: tokenizers.Tokenizer, piece: str) -> None:
    """Let plain prompts begin with this token."""
    special_tokens = [(piece, backend.token_to_id(piece))]
    backend.post_processor = processors.TemplateProcessing(single=[piece, "$A"], special_tokens=special_tokens)
