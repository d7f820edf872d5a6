"""Tokenizers: text in, ids out, and back piece by piece."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testing_models import trained_tokenizer

from ssd_lab.errors import ConfigError
from ssd_lab.models.text.incremental import IncrementalDecoder
from ssd_lab.models.text.tokenizer import Tokenizer

PIECES = Tokenizer(trained_tokenizer())


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


@settings(max_examples=300, deadline=None)
@given(data=st.data(), repeats=st.integers(1, 12))
def test_streamed_pieces_are_the_decoded_text_of_any_tokens(data: st.DataObject, repeats: int) -> None:
    """Pieces that cut characters anywhere, special tokens between them, bytes that are no text, long texts."""
    ids = data.draw(st.lists(st.integers(0, PIECES.vocab_size - 1), max_size=40)) * repeats
    decoder = IncrementalDecoder(PIECES)
    text, whole = "", PIECES.decode(ids)
    for token in ids:
        text += decoder.push(token)
        assert whole.startswith(text)  # nothing is ever taken back
    assert text + decoder.flush() == whole


def test_no_more_than_one_character_is_held_back() -> None:
    ids = PIECES.encode("日本語 🙂 " * 60)
    decoder, text = IncrementalDecoder(PIECES), ""
    for count, token in enumerate(ids, 1):
        text += decoder.push(token)
        assert text == PIECES.decode(ids[:count]).removesuffix("\ufffd")


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


def test_templates_have_what_published_ones_use(tokenizer: Tokenizer) -> None:
    """A date that does not change, JSON that is not escaped for HTML, and `break` in loops."""
    template = (
        "{{ strftime_now('%d %b %Y') }} {{ messages[0] | tojson }}"
        "{% for m in messages %}{% if m.role == 'user' %}{% break %}{% endif %}never{% endfor %}"
    )
    chat = Tokenizer(tokenizer._backend, chat_template=template)
    assert chat.apply_chat([{"role": "user", "content": "é<a>"}]) == '26 Jul 2024 {"role": "user", "content": "é<a>"}'


def test_a_template_that_refuses_says_why(tokenizer: Tokenizer) -> None:
    chat = Tokenizer(tokenizer._backend, chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ConfigError, match="roles must alternate"):
        chat.apply_chat([{"role": "user", "content": "hello"}])


def test_fingerprints_tell_tokenizers_apart(tokenizer: Tokenizer, tiny_pair) -> None:
    assert tokenizer.fingerprint == Tokenizer.from_folder(Path(tiny_pair.draft)).fingerprint
    assert tokenizer.fingerprint != PIECES.fingerprint


@pytest.mark.parametrize("leftover", ["truncation", "padding", "dropout"])
def test_what_training_left_in_a_tokenizer_changes_no_prompt(tmp_path: Path, leftover: str) -> None:
    backend = trained_tokenizer()
    text = "naïve café, привет " * 3
    ids = backend.encode(text).ids
    if leftover == "truncation":
        backend.enable_truncation(max_length=4)
    elif leftover == "padding":
        backend.enable_padding(length=200)
    else:
        backend.model.dropout = 0.9
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_folder(tmp_path).encode(text) == ids
