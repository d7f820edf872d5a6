"""What the files of a checkpoint folder say about its tokenizer: end tokens, templates, added tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from testing_models import trained_tokenizer
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from tokenizers.processors import TemplateProcessing

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files.checkpoint import open_checkpoint
from ssd_lab.models.text.tokenizer import Tokenizer

TALK = [{"role": "user", "content": "Hi"}]


def folder(path: Path, *specials: str, **files: Any) -> Path:
    """tokenizer.json with these special tokens too, and other files: name -> JSON (or text)."""
    backend = trained_tokenizer()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    backend.save(str(path / "tokenizer.json"))
    for name, content in files.items():
        if isinstance(content, str):
            (path / f"{name}.jinja").write_text(content, encoding="utf-8")
        else:
            (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return path


def ends(path: Path, *named: int) -> set[str]:
    tokenizer = Tokenizer.from_folder(path, named)
    pieces = tokenizer.vocabulary()
    return {pieces[index] for index in tokenizer.eos_token_ids}


def test_every_file_adds_its_end_tokens(tmp_path: Path) -> None:
    names = [f"<e{number}>" for number in range(7)]
    start = trained_tokenizer().get_vocab_size()
    path = folder(
        tmp_path,
        *names,
        generation_config={"eos_token_id": [start + 1, start + 2]},
        tokenizer_config={"eos_token": {"content": "<e3>"}, "eot_token": "<e4>"},
        special_tokens_map={"eos_token": "<e6>", "eom_token": {"content": "<e5>"}},
    )
    assert ends(path, start) == {"<e0>", "<e1>", "<e2>", "<e3>", "<e4>", "<e5>", "<|end|>"}


@pytest.mark.parametrize("name", ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>", "[EOT]"])
def test_a_usual_turn_end_ends_an_answer_though_no_file_names_it(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, "</s>", name, tokenizer_config={"eos_token": "</s>"})
    assert ends(path) == {"</s>", name, "<|end|>"}


def test_a_turn_end_that_is_plain_text_in_the_vocabulary_ends_nothing(tmp_path: Path) -> None:
    backend = trained_tokenizer()
    backend.add_special_tokens([AddedToken("</s>", special=True)])
    backend.add_tokens([AddedToken("<EOT>", special=False)])
    backend.save(str(tmp_path / "tokenizer.json"))
    assert "<EOT>" not in ends(tmp_path)


def test_an_end_of_text_ends_answers_only_where_no_other_end_is_known(tmp_path: Path) -> None:
    (tmp_path / "named").mkdir()
    assert ends(folder(tmp_path / "named", "<|endoftext|>", tokenizer_config={"eos_token": "<|end|>"})) == {"<|end|>"}
    backend = trained_tokenizer().to_str().replace("<|end|>", "</s>")
    (tmp_path / "tokenizer.json").write_text(backend, encoding="utf-8")
    assert ends(tmp_path) == {"</s>"}


def test_end_tokens_hold_without_a_tokenizer_too(tiny_pair, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(tiny_pair.target) / name, tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 258]}', encoding="utf-8")
    assert open_checkpoint(tmp_path).config.eos_token_ids == (3, 258)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config": {"chat_template": "config"}}, "config"),
        ({"chat_template": "file", "tokenizer_config": {"chat_template": "config"}}, "file"),
        ({"tokenizer_config": {"chat_template": [{"name": "tool_use", "template": "tools"},
                                                 {"name": "default", "template": "default"}]}}, "default"),
        ({"tokenizer_config": {"chat_template": [{"name": "rag", "template": "rag"},
                                                 {"name": "chat", "template": "chat"}]}}, "chat"),
        ({"tokenizer_config": {"chat_template": {"default": "default", "rag": "rag"}}}, "default"),
        ({"tokenizer_config": {"chat_template": [{"name": "tool_use", "template": "tools"}]}}, None),
        ({"tokenizer_config": {}}, None),
    ],
)  # fmt: skip
def test_the_template_of_a_plain_conversation_is_taken(tmp_path: Path, files: dict[str, Any], expected: str) -> None:
    tokenizer = Tokenizer.from_folder(folder(tmp_path, **files))
    assert tokenizer.has_chat_template == (expected is not None)
    assert expected is None or tokenizer.apply_chat(TALK) == expected


def test_a_template_in_a_json_file_of_its_own_is_read_last(tmp_path: Path) -> None:
    folder(tmp_path, chat_template={"chat_template": "own"}, tokenizer_config={})
    assert Tokenizer.from_folder(tmp_path).apply_chat(TALK) == "own"
    folder(tmp_path, tokenizer_config={"chat_template": "config"})
    assert Tokenizer.from_folder(tmp_path).apply_chat(TALK) == "config"


def test_a_template_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="chat_template is neither a text nor a list of named templates"):
        Tokenizer.from_folder(folder(tmp_path, tokenizer_config={"chat_template": [3]}))


def test_tokens_that_only_the_config_has_are_added_as_transformers_does(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    size = trained_tokenizer().get_vocab_size()
    token = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    added = {
        str(size): {"content": "<|new|>", "special": True, **token},
        str(size + 1): {"content": "<tag>", "special": False, **token, "lstrip": True, "rstrip": True},
        str(size - 1): {"content": "<think>", "special": True, **token},  # tokenizer.json has it as text
    }
    path = folder(tmp_path, tokenizer_config={"added_tokens_decoder": added, "eos_token": "<|end|>"})
    ours, theirs = Tokenizer.from_folder(path), PreTrainedTokenizerFast.from_pretrained(path)
    for text in ("naïve<|new|>日本", "x <tag>  y", "<think>a</think>", "a<|end|>b"):
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_ids_beyond_the_vocabulary_are_no_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder(tmp_path))
    assert tokenizer.decode([*tokenizer.encode("naïve"), tokenizer.vocab_size, tokenizer.vocab_size + 70]) == "naïve"


@pytest.mark.parametrize(("asked", "begins"), [(True, True), (False, False), (None, True)])
@pytest.mark.parametrize("written", [True, False])
def test_the_configs_word_on_begin_tokens_is_the_last(
    tmp_path: Path, asked: bool | None, begins: bool, written: bool
) -> None:
    config = {"bos_token": "<s>"} if asked is None else {"bos_token": "<s>", "add_bos_token": asked}
    folder(tmp_path, "<s>", tokenizer_config=config)
    if written:  # in tokenizer.json
        backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
        backend.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
        backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_folder(tmp_path)
    plain = tokenizer.encode("naïve")
    expected = begins if asked is not None else written
    assert (tokenizer.encode("naïve", add_special_tokens=True) != plain) == expected


def test_an_end_token_is_no_text_though_the_vocabulary_has_it_as_a_piece(tmp_path: Path) -> None:
    path = folder(
        tmp_path, tokenizer_config={"eos_token": "Ã©", "pad_token": "a"}
    )  # the letters of é in the vocabulary
    tokenizer = Tokenizer.from_folder(path)
    assert tokenizer.decode([*tokenizer.encode("va"), *tokenizer.eos_token_ids]) == "va"  # the pad token stays a letter
