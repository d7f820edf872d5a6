"""Text in pieces is the text that the tokenizers library decodes, for every kind of decoder."""

from __future__ import annotations

from itertools import pairwise

import pytest
from decoder_kinds import KINDS
from hypothesis import given, settings
from hypothesis import strategies as st
from testing_models import random_tensors, tiny_config

from ssd_lab import LLM, SamplingParams
from ssd_lab.models.loader import LoadedModel, from_tensors
from ssd_lab.models.text.incremental import IncrementalDecoder
from ssd_lab.models.text.tokenizer import Tokenizer

TOKENIZERS = {name: Tokenizer(make()) for name, make in KINDS.items()}
every_kind = pytest.mark.parametrize("kind", KINDS)


def in_pieces(tokenizer: Tokenizer, ids: list[int], behind: list[int] | None = None) -> str:
    decoder = IncrementalDecoder(tokenizer, behind or [])
    return "".join([decoder.push(token) for token in ids] + [decoder.flush()])


def ids_of(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Any ids, two beyond the vocabulary too; few different ones, so that bytes meet; and long texts."""
    few = st.lists(st.integers(0, tokenizer.vocab_size + 1), min_size=1, max_size=6)
    return few.flatmap(lambda ids: st.lists(st.sampled_from(ids), max_size=40)).flatmap(
        lambda ids: st.integers(1, 8).map(lambda times: ids * times)
    )


@pytest.mark.quick("byte_level", "llama2", "wordpiece")
@pytest.mark.grid(most=4)
@every_kind
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_pieces_of_any_ids_join_to_the_decoded_text(kind: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = data.draw(ids_of(tokenizer))
    assert in_pieces(tokenizer, ids) == tokenizer.decode(ids)


@pytest.mark.quick("byte_level", "llama2", "wordpiece")
@pytest.mark.grid(most=4)
@every_kind
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_text_behind_another_reads_on_as_in_the_whole_text(kind: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[kind]
    before, after = data.draw(ids_of(tokenizer)), data.draw(ids_of(tokenizer))
    first, whole = tokenizer.decode(before), tokenizer.decode(before + after)
    if whole.startswith(first):
        assert first + in_pieces(tokenizer, after, behind=before) == whole
    else:  # a character that the first text only began
        assert whole.endswith(in_pieces(tokenizer, after, behind=before))


@pytest.mark.parametrize("text", ["a €", "a 😀", "a 你好 b", "€€€", "b😀.a"])
def test_characters_of_several_byte_pieces_come_whole(text: str) -> None:
    tokenizer = TOKENIZERS["llama2"]
    ids = tokenizer.encode(text)
    assert in_pieces(tokenizer, ids) == tokenizer.decode(ids) == text


def test_byte_pieces_that_are_no_text_show_one_replacement_each() -> None:
    """As the library has it: a run of byte pieces is text only if all of it is."""
    tokenizer = TOKENIZERS["llama2"]
    euro, a = [1 + byte for byte in "€".encode()], tokenizer.encode("a")
    assert in_pieces(tokenizer, [*euro, *a]) == "€ a"
    assert in_pieces(tokenizer, [*euro[:2], *a]) == "\ufffd\ufffd a"
    assert in_pieces(tokenizer, [*euro, euro[0]]) == "\ufffd" * 4
    assert in_pieces(tokenizer, euro[:2]) == "\ufffd\ufffd"


def test_a_special_token_inside_a_character_does_not_break_it() -> None:
    for kind in ("llama2", "byte_level"):
        tokenizer = TOKENIZERS[kind]
        one, two, three = tokenizer.encode("€")[-3:] if kind == "byte_level" else [1 + b for b in "€".encode()]
        end = tokenizer.vocab_size - 2
        assert in_pieces(tokenizer, [one, end, two, three]) == tokenizer.decode([one, two, three]) == "€"


def test_a_character_begun_in_the_prompt_is_finished_by_the_text() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ids = tokenizer.encode("é")
    assert in_pieces(tokenizer, ids[1:], behind=ids[:1]) == "é"
    assert in_pieces(tokenizer, tokenizer.encode("a"), behind=ids[:1]) == "a"  # that character was the prompt's


def follows(tokenizer: Tokenizer, path: list[int]) -> LoadedModel:
    """A model that says path[i + 1] after path[i]: embeddings and outputs are unit vectors, its layers do nothing."""
    config = tiny_config(tokenizer.vocab_size, tie_embeddings=False)
    tensors = random_tensors(config)
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight", "embed_tokens.weight", "lm_head.weight")):
            tensor.zero_()
    for step, (token, following) in enumerate(pairwise(path)):
        tensors["model.embed_tokens.weight"][token, step] = 1
        tensors["lm_head.weight"][following, step] = 1
    return from_tensors(config, tensors, tokenizer=tokenizer, dtype="float32")


def outcome(model: LoadedModel, prompt: object, **params: object) -> tuple[str, str]:
    """The text and its stream's, of which both must agree."""
    with LLM(model, strategy="prompt_lookup", dtype="float32", threads=1, progress=False) as llm:
        asked = SamplingParams(**params)
        text = llm.generate(prompt, asked)[0].text
        return text, "".join(chunk.text for chunk in llm.stream(prompt, asked))


def test_the_text_after_a_plain_prompt_keeps_its_space_and_an_answer_begins_without() -> None:
    plain = Tokenizer(KINDS["llama2"]())
    prompt, spaced = plain.encode("a"), plain.encode("b")
    chat = Tokenizer(KINDS["llama2"](), chat_template="{{ messages[0].content }}")
    for asked in ("a", prompt):
        assert outcome(follows(plain, [*prompt, *spaced]), asked, max_tokens=1) == (" b", " b")
    template_ends = chat.encode(chat.apply_chat([{"role": "user", "content": "a"}]))
    assert outcome(follows(chat, [*template_ends, *spaced]), "a", max_tokens=1) == ("b", "b")


def test_a_stop_string_is_found_across_byte_pieces_and_spaces() -> None:
    tokenizer = TOKENIZERS["llama2"]
    start, after = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    path = [start, *(1 + byte for byte in "é".encode()), after]
    model = follows(tokenizer, path)
    assert outcome(model, [start], max_tokens=3) == ("é b", "é b")
    assert outcome(model, [start], max_tokens=3, stop=["é b"]) == ("", "")
    assert outcome(model, [start], max_tokens=3, stop=[" b"]) == ("é", "é")
    assert outcome(model, [start], max_tokens=2) == ("é", "é")  # cut by length: nothing is left behind


@pytest.mark.parametrize(
    ("kind", "piece", "text"),
    [("llama2", "▁a", " a"), ("llama2", "a", "a"), ("llama2", "<0xE2>", "\ufffd"), ("llama2", "</s>", "</s>"),
     ("metaspace", "▁a", " a"), ("byte_level", "Ġa", " a"), ("byte_level", "¬a", "\ufffda"),
     ("wordpiece", "he", " he"), ("plain_words", "a", " a")],
)  # fmt: skip
def test_a_token_by_itself_is_the_text_that_it_adds(kind: str, piece: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = {known: index for index, known in tokenizer.vocabulary().items()}
    assert tokenizer.token_text(ids[piece]) == text


def test_bytes_without_end_cost_no_more_than_other_text(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    for kind, byte in (("byte_level", 10), ("llama2", 1 + 0x80)):
        tokenizer = TOKENIZERS[kind]
        decode = tokenizer.decode
        monkeypatch.setattr(tokenizer, "decode", lambda ids, decode=decode: decoded.append(len(ids)) or decode(ids))
        in_pieces(tokenizer, [byte] * 2000)
        assert sum(decoded) < 2000 * 70
        decoded.clear()
