"""Text to token ids and back, and the chat template, without importing transformers."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from ssd_lab.errors import ConfigError, ModelLoadError

TODAY = datetime.date(2024, 7, 26)  # told to every chat template: a prompt must not depend on the day (Llama's default)
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
        _forget_training(backend)

    @classmethod
    def from_folder(cls, folder: Path, eos_token_ids: Sequence[int] = ()) -> Tokenizer:
        """From tokenizer.json and, where they are, tokenizer_config.json, chat_template.jinja,
        generation_config.json.
        """
        file = folder / "tokenizer.json"
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a plain Exception for everything
            raise ModelLoadError(f"{file} is damaged ({error}): download it again") from error
        config = _read_json(folder / "tokenizer_config.json")
        generation = _read_json(folder / "generation_config.json")
        specials = {
            name: value if isinstance(value, str) else value["content"]
            for name, value in config.items()
            if name.endswith("_token")
            and isinstance(value, str | dict)
            and (isinstance(value, str) or "content" in value)
        }
        ends = set(eos_token_ids)
        listed = generation.get("eos_token_id")
        ends |= {listed} if isinstance(listed, int) else set(listed or ())
        named = backend.token_to_id(specials["eos_token"]) if "eos_token" in specials else None
        ends |= set() if named is None else {named}
        template = config.get("chat_template")
        if isinstance(template, list):
            template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
        if (folder / "chat_template.jinja").exists():
            template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        return cls(backend, eos_token_ids=sorted(ends), chat_template=template, special_tokens=specials)

    @property
    def vocab_size(self) -> int:
        """Token ids, special ones included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

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
        """Token ids of a text."""
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of token ids."""
        return self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self._backend.get_added_tokens_decoder()
        return frozenset(index for index, token in added.items() if token.special)

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

    def apply_chat(self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
        """The text of a conversation (`role`, `content`), up to where the assistant answers."""
        if self._chat_template is None:
            raise ConfigError("this tokenizer has no chat template: give plain text prompts (chat=False)")
        import jinja2.sandbox

        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise_template_error
        environment.globals["strftime_now"] = TODAY.strftime
        environment.filters["tojson"] = _template_json
        try:
            return environment.from_string(self._chat_template).render(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **self._special_tokens
            )
        except jinja2.TemplateError as error:
            raise ConfigError(f"the chat template refused the messages: {error}") from error

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


def _template_json(value: Any, indent: int | None = None) -> str:
    """JSON for a prompt: Jinja's own filter would escape it for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_template_error(message: str) -> None:
    raise ConfigError(f"the chat template refused the messages: {message}")


def _read_json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{file} is damaged ({error}): download it again") from error
