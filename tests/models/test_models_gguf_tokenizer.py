"""Tokenizers of GGUF files: words, whole words, ends, begins and templates as the model was trained with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testing_models import CONTROL, NORMAL, USER_DEFINED, trained_tokenizer
from tokenizers import Regex, pre_tokenizers

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.gguf.tokenizer import GgufTokenizer
from ssd_lab.models.gguf.words import RULES
from ssd_lab.models.text.tokenizer import Tokenizer

TEXTS = [
    "It's I'LL don't   we've\n\n  x = 3.14159 + 20_000;\t// Việt Nam naïve e\u0301a\u0301",
    "日本語のテキスト、ひらがな カタカナ 123 한국어 عربى हिन्दी ไทย ½ Ⅷ ²",
    "HelloWorld HTTPServer iPhone's ÀÉ \r\n\r\n path/to//file  \n  (end)... !!??  $5.00 <b>€</b> 🙂🙃 ",
    "     ",
    "'s'S 1234567890 a1b2",
]


def entries(**changes: Any) -> dict[str, Any]:
    """What the file of a small byte-level tokenizer says; None leaves an entry out. `x` stands for tokenizer.ggml.x."""
    backend = trained_tokenizer()
    vocabulary = {index: piece for piece, index in backend.get_vocab(with_added_tokens=True).items()}
    pieces = [vocabulary[index] for index in range(len(vocabulary))]
    kinds = {"<|end|>": CONTROL, "<think>": USER_DEFINED}
    for piece, kind in changes.pop("add", {}).items():
        pieces.append(piece)
        kinds[piece] = kind
    own = {
        "model": "gpt2",
        "tokens": pieces,
        "token_type": [kinds.get(piece, NORMAL) for piece in pieces],
        "merges": [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]],
        **changes,
    }
    found = {key if "chat_template" in key else f"tokenizer.ggml.{key}": value for key, value in own.items()}
    return {key: value for key, value in found.items() if value is not None}


def read(file: dict[str, Any]) -> Tokenizer:
    def entry(key: str, *default: Any) -> Any:
        return file.get(key, *default) if default else file[key]

    return GgufTokenizer(entry, "model.gguf").read()


def tokenizer(**changes: Any) -> Tokenizer:
    return read(entries(**changes))


def words(cutter: pre_tokenizers.PreTokenizer, text: str) -> list[str]:
    return [word for word, _ in cutter.pre_tokenize_str(text)]


def published(pattern: str) -> pre_tokenizers.PreTokenizer:
    cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def test_words_are_cut_as_transformers_cuts_them() -> None:
    names = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    shared = names.GGUF_PRE_TOKENIZER_SPLITS.keys() & RULES.keys()
    assert {"llama-bpe", "qwen2", "tekken", "gpt-4o"} <= shared
    for name in shared:
        for text in TEXTS:
            expected = words(published(names.GGUF_PRE_TOKENIZER_SPLITS[name]), text)
            assert words(RULES[name].pre_tokenizer(), text) == expected, (name, text)


def test_gpt2_words_and_their_kin_are_the_librarys() -> None:
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    for text in TEXTS:
        assert words(RULES["gpt-2"].pre_tokenizer(), text) == words(plain, text)
        assert words(RULES["default"].pre_tokenizer(), text) == words(plain, text)
        assert words(RULES["smollm"].pre_tokenizer(), text) == words(digits, text)


def shown(name: str, text: str) -> list[str]:
    """Words as text again."""
    back = {letter: byte for byte, letter in enumerate(_letters())}
    cut = words(RULES[name].pre_tokenizer(), text)
    return [bytes(back[letter] for letter in word).decode() for word in cut]


def _letters() -> list[str]:
    """The byte-level letter of each byte, as GPT-2 has them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deepseek-v3", ["abc", " ", "123", "45", " ", "日本語の", "\n", " x", "=y", ";\n"]),
        ("deepseek-coder", ["abc", " ", "1", "2", "3", "4", "5", " ", "日本語の", "\n", " x", "=", "y", ";", "\n"]),
        ("seed-coder", ["abc", " ", "1", "2", "3", "4", "5", " 日本語の", "\n", " x", "=y", ";", "\n"]),
        ("smollm", ["abc", " ", "1", "2", "3", "4", "5", " 日本語の", "\n", " x", "=", "y", ";", "\n"]),
    ],
)
def test_words_of_other_families(name: str, expected: list[str]) -> None:
    assert shown(name, "abc 12345 日本語の\n x=y;\n") == expected


@pytest.mark.parametrize("name", ["gpt4-made-up", "deepseek-llm", ""])
def test_words_that_are_not_known_are_refused(name: str) -> None:
    with pytest.raises(ModelLoadError, match=rf"cuts words, '{name}', is not known .*qwen2.*safetensors"):
        tokenizer(pre=name)


@pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
def test_another_kind_of_tokenizer_is_refused(kind: str) -> None:
    with pytest.raises(ModelLoadError, match=f"its tokenizer is '{kind}'; only byte-level BPE"):
        tokenizer(model=kind)


def test_merges_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelLoadError, match="its tokenizer is damaged"):
        tokenizer(merges=["Ġnot there"])


@pytest.mark.parametrize(
    ("pre", "whole"),
    [
        ("llama-bpe", True),
        ("llama3", True),
        ("falcon3", True),
        ("tekken", True),
        ("smaug-bpe", False),
        ("qwen2", False),
    ],
)
def test_a_word_that_is_a_token_is_that_token_where_the_model_has_it_so(pre: str, whole: bool) -> None:
    """Though no merges lead to it, as " Việt" of Llama 3."""
    word = "".join(_letters()[byte] for byte in " Việt".encode())
    made = tokenizer(pre=pre, add={word: NORMAL})
    ids = made.encode(" Việt")
    assert (ids == [made.vocab_size - 1]) == whole
    assert made.decode(ids) == " Việt"


def test_accents_are_joined_to_their_letters_where_the_model_has_it_so() -> None:
    assert tokenizer(pre="qwen2").encode("e\u0301") == tokenizer(pre="qwen2").encode("é")
    assert tokenizer(pre="llama-bpe").encode("e\u0301") != tokenizer(pre="llama-bpe").encode("é")


def end_texts(made: Tokenizer) -> set[str]:
    return {made.vocabulary()[index] for index in made.eos_token_ids}


def test_all_ends_that_the_file_names_and_the_usual_ones_end_an_answer() -> None:
    size = len(entries()["tokenizer.ggml.tokens"])
    add = {"<a>": CONTROL, "<b>": CONTROL, "<c>": CONTROL, "<|im_end|>": CONTROL, "<|eom_id|>": NORMAL, "<d>": CONTROL}
    made = tokenizer(add=add, eos_token_id=size, eot_token_id=size + 1, eom_token_id=size + 2)
    assert end_texts(made) == {"<a>", "<b>", "<c>", "<|im_end|>", "<|eom_id|>", "<|end|>"}
    assert made.encode("<|eom_id|>") == [size + 4]  # whole, though the file says that it is a piece like others
    assert made.decode([size + 4]) == ""


def test_ids_beyond_the_vocabulary_name_nothing() -> None:
    made = tokenizer(eos_token_id=10**6, eot_token_id=10**6, bos_token_id=10**6, pre="llama-bpe")
    assert end_texts(made) == {"<|end|>"}
    assert made.encode("a", add_special_tokens=True) == made.encode("a")


@pytest.mark.parametrize(
    ("pre", "flag", "begins"),
    [("llama-bpe", None, True), ("llama-bpe", False, False), ("tekken", None, True), ("qwen2", None, False),
     ("qwen2", True, True), ("default", None, False)],
)  # fmt: skip
def test_prompts_begin_as_the_file_says_or_its_family_does(pre: str, flag: bool | None, begins: bool) -> None:
    size = len(entries()["tokenizer.ggml.tokens"])
    made = tokenizer(pre=pre, add={"<s>": CONTROL}, bos_token_id=size, add_bos_token=flag)
    plain = made.encode("naïve")
    assert made.encode("naïve", add_special_tokens=True) == ([size, *plain] if begins else plain)
    assert made.encode("<s>naïve", add_special_tokens=True) == [size, *plain]


@pytest.mark.parametrize(
    ("templates", "expected"),
    [
        ({"": "plain"}, "plain"),
        ({"": "plain", "tool_use": "tools"}, "plain"),
        ({"tool_use": "tools", "default": "default"}, "default"),
        ({"tool_use": "tools", "chat": "chat"}, "chat"),
        ({"tool_use": "tools"}, None),
        ({}, None),
    ],
)
def test_the_template_of_a_plain_conversation_is_taken(templates: dict[str, str], expected: str | None) -> None:
    file = {f"tokenizer.chat_template{'.' if name else ''}{name}": text for name, text in templates.items()}
    made = tokenizer(**file, **{"tokenizer.chat_templates": [name for name in templates if name]})
    assert made.has_chat_template == (expected is not None)
    assert expected is None or made.apply_chat([{"role": "user", "content": "Hi"}]) == expected


def test_a_template_finds_the_special_tokens_under_their_usual_names() -> None:
    size = len(entries()["tokenizer.ggml.tokens"])
    ids = {"bos": size, "eos": size + 1, "unknown": size + 2, "padding": size + 3}
    made = tokenizer(
        add={f"<{name}>": CONTROL for name in ids},
        **{f"{name}_token_id": index for name, index in ids.items()},
        **{"tokenizer.chat_template": "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}"},
    )
    assert made.apply_chat([{"role": "user", "content": "Hi"}]) == "<bos><eos><unknown><padding>"
