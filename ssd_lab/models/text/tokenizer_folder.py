"""What a checkpoint folder says about its tokenizer, in the six files where it may say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, processors

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files.json_file import read_json
from ssd_lab.models.text.end_tokens import end_token_ids

END_NAMES = ("eos_token", "eot_token", "eom_token")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


class TokenizerFolder:
    """A folder with tokenizer.json; the other files may be missing. Raises ModelLoadError for damaged ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = read_json(folder / "tokenizer_config.json")
        named = {**read_json(folder / "special_tokens_map.json"), **self._config}
        contents = {name: _content(value) for name, value in named.items() if name.endswith("_token")}
        self.special_tokens = {name: text for name, text in contents.items() if text is not None}

    def backend(self) -> tokenizers.Tokenizer:
        """tokenizer.json, with the tokens that only tokenizer_config.json has, as transformers adds them."""
        file = self._folder / "tokenizer.json"
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a plain Exception for everything
            raise ModelLoadError(f"{file} is damaged ({error}): download it again") from error
        self._add_tokens(backend)
        self._begin_as_asked(backend)
        return backend

    def end_token_ids(self, backend: tokenizers.Tokenizer, named: Iterable[int] = ()) -> tuple[int, ...]:
        """Those named (by config.json), those of the other configs here, and usual turn ends."""
        by_text = [backend.token_to_id(self.special_tokens[name]) for name in END_NAMES if name in self.special_tokens]
        added = backend.get_added_tokens_decoder()
        specials = {token.content: index for index, token in added.items() if token.special}
        return end_token_ids([*named, *generation_end_ids(self._folder), *by_text], specials)

    def chat_template(self) -> str | None:
        """From chat_template.jinja, else tokenizer_config.json, else chat_template.json."""
        file = self._folder / "chat_template.jinja"
        if file.exists():
            return file.read_text(encoding="utf-8")
        for name, document in (
            ("tokenizer_config.json", self._config),
            ("chat_template.json", read_json(self._folder / "chat_template.json")),
        ):
            found = default_template(document.get("chat_template"), f"{self._folder / name}")
            if found is not None:
                return found
        return None

    def _add_tokens(self, backend: tokenizers.Tokenizer) -> None:
        listed: Mapping[str, Any] = self._config.get("added_tokens_decoder") or {}
        present = backend.get_added_tokens_decoder()
        for index, entry in sorted((int(index), entry) for index, entry in listed.items()):
            token = AddedToken(entry["content"], **{flag: bool(entry.get(flag)) for flag in _FLAGS})
            known = present.get(index)
            if known is not None and known.content == token.content and known.special == token.special:
                continue
            taken = backend.id_to_token(index)
            if taken == token.content or (taken is None and index == backend.get_vocab_size()):
                (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        _make_special(backend, [self.special_tokens.get(name) for name in (*END_NAMES, "bos_token")])

    def _begin_as_asked(self, backend: tokenizers.Tokenizer) -> None:
        """`add_bos_token` of the config has the last word, as in transformers."""
        begin = self.special_tokens.get("bos_token")
        index = None if begin is None else backend.token_to_id(begin)
        asked = self._config.get("add_bos_token")
        if index is None or not isinstance(asked, bool) or asked == (index in backend.encode("").ids):
            return
        begins = [begin, "$A"] if asked else ["$A"]
        backend.post_processor = processors.TemplateProcessing(single=begins, special_tokens=[(begin, index)])


def default_template(found: Any, where: str) -> str | None:
    """The template to use of what a config has: a text, or several by name. Raises ModelLoadError for anything else."""
    if found is None or isinstance(found, str):
        return found
    try:
        named = dict(found) if isinstance(found, Mapping) else {each["name"]: each["template"] for each in found}
    except (TypeError, KeyError) as error:
        raise ModelLoadError(f"{where}: chat_template is neither a text nor a list of named templates") from error
    if "default" in named:
        return named["default"]
    others = [name for name in named if name not in ("tool_use", "rag")]  # these want tools or documents
    return named[others[0]] if others else None


def generation_end_ids(folder: Path) -> tuple[int, ...]:
    """eos_token_id of generation_config.json, one or many."""
    listed = read_json(folder / "generation_config.json").get("eos_token_id")
    return (listed,) if isinstance(listed, int) else tuple(listed or ())


def _make_special(backend: tokenizers.Tokenizer, names: Sequence[str | None]) -> None:
    """Where a prompt begins and an answer ends is no text, though the vocabulary may have it as a piece like others."""
    present = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    for name in names:
        if name is not None and name not in present and backend.token_to_id(name) is not None:
            backend.add_special_tokens([AddedToken(name, special=True, normalized=False)])


def _content(value: Any) -> str | None:
    """A special token's text, from a text or a dictionary."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None
