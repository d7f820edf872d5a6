"""Tokenizers: text in, ids out, and back piece by piece."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_lab.errors import ConfigError
from ssd_lab.models.incremental import IncrementalDecoder
from ssd_lab.models.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_pair) -> Tokenizer:
    return Tokenizer.from_folder(Path(tiny_pair.target))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_streamed_pieces_join_to_the_whole_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = tokenizer.encode(data.draw(st.text(alphabet=st.characters(codec="utf-8"), max_size=60)))
    decoder = IncrementalDecoder(tokenizer)
    pieces = [decoder.push(token) for token in ids]
    assert "".join(pieces) + decoder.flush() == tokenizer.decode(ids)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_streaming_survives_bytes_that_are_no_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """A model may emit any bytes: what is streamed must stay text, and valid text after it must come through."""
    noise = data.draw(st.lists(st.integers(0, 255), max_size=12))
    decoder = IncrementalDecoder(tokenizer)
    text = (
        "".join(decoder.push(token) for token in [*noise, *tokenizer.encode(" plain words at the end")])
        + decoder.flush()
    )
    assert text.endswith("plain words at the end")


def test_a_character_of_several_tokens_comes_whole(tokenizer: Tokenizer) -> None:
    decoder = IncrementalDecoder(tokenizer)
    assert [decoder.push(token) for token in tokenizer.encode("é!")] == ["", "é", "!"]


def test_special_tokens_are_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([*tokenizer.encode("hi"), tokenizer.eos_token_ids[0]]) == "hi"


def test_the_end_token_comes_from_the_tokenizer_config(tokenizer: Tokenizer) -> None:
    assert tokenizer.eos_token_ids == (258,)


def test_chat_without_a_template_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        tokenizer.apply_chat([{"role": "user", "content": "hello"}])


def test_a_chat_template_is_rendered(tiny_pair) -> None:
    plain = Tokenizer.from_folder(Path(tiny_pair.target))
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    chat = Tokenizer(plain._backend, chat_template=template)
    assert chat.apply_chat([{"role": "user", "content": "hello"}]) == "[user]hello[assistant]"
