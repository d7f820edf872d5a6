"""Chat templates are rendered as transformers renders them; what is no conversation is refused in words."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from testing_models import trained_tokenizer
from tokenizers.processors import TemplateProcessing

from ssd_lab.errors import ConfigError, PromptError
from ssd_lab.models.text.tokenizer import Tokenizer

SPECIALS = {"bos_token": "<s>", "eos_token": "<|end|>"}
PLAIN = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
PARTS = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
)
EITHER = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}<{{ part['text'] }}>{% endfor %}{% endif %}{% endfor %}"
)
FIRST_PART = "{% for m in messages %}[{{ m.role }}]{{ m.content[0].text }}{% endfor %}"
USES = {
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% set x = 1 %}{% endgeneration %}"
    "{{ x }};{% endfor %}",
    "no tools": "{% if tools is not none %}You can call {{ tools }}{% endif %}{{ messages[0].content }}",
    "no documents": "{% if documents is not none %}Read {{ documents }}{% endif %}{{ messages[0].content }}",
    "tools defined": "{{ tools is defined }} {{ documents is defined }} {{ pad_token is defined }}",
    "special tokens": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ unk_token }}",
    "json": "{{ messages | tojson }} {{ messages | tojson(indent=2) }}"
    "{{ {'b': 1, 'a': 'é<'} | tojson(sort_keys=True) }}"
    "{{ {'a': 'é'} | tojson(ensure_ascii=True, separators=(',', ':')) }}",
    "loop controls": "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}"
    "{{ m.content }}{% endfor %}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "whitespace": "  {% if true %}\n  {{ messages[0].content | trim }}\n  {% endif %}\n{# a note #}\nend",
    "generation prompt": "{{ add_generation_prompt }}",
}
TALK = [
    {"role": "system", "content": " Be kind. "},
    {"role": "user", "content": "Hi <b>"},
    {"role": "assistant", "content": "Hello."},
]


def chat(template: str | None, **special_tokens: str) -> Tokenizer:
    return Tokenizer(trained_tokenizer(), chat_template=template, special_tokens=special_tokens or SPECIALS)


def by_transformers(template: str, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=add_generation_prompt, **SPECIALS
    )
    return rendered[0]


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("template", [PLAIN, *USES.values()], ids=["plain", *USES])
def test_a_template_sees_what_transformers_gives_it(template: str, add_generation_prompt: bool) -> None:
    expected = by_transformers(template, TALK, add_generation_prompt=add_generation_prompt)
    assert chat(template).apply_chat(TALK, add_generation_prompt=add_generation_prompt) == expected


def parts(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]


@pytest.mark.parametrize("template", [PARTS, EITHER], ids=["only parts", "either"])
def test_parts_go_as_they_are_to_a_template_that_reads_them(template: str) -> None:
    talk = parts("Hi", "there")
    assert chat(template).apply_chat(talk) == by_transformers(template, talk, add_generation_prompt=True)


def test_parts_are_joined_for_a_template_that_wants_a_text() -> None:
    assert chat(PLAIN).apply_chat(parts("Hi")) == "[user] Hi\n[assistant] "
    assert chat(PLAIN).apply_chat(parts("Hi", "there")) == "[user] Hi\nthere\n[assistant] "
    assert chat("{{ messages[0].role + messages[0].content }}").apply_chat(parts("Hi")) == "userHi"
    assert chat("{{ messages | tojson }}").apply_chat(parts("Hi")) == '[{"role": "user", "content": "Hi"}]'


def test_a_text_becomes_a_part_for_a_template_that_reads_only_parts() -> None:
    """It would lose the prompt without a word."""
    talk = [{"role": "user", "content": "Hi"}]
    assert chat(PARTS).apply_chat(talk) == "[user]Hi"
    assert chat(FIRST_PART).apply_chat(talk) == "[user]Hi"
    assert chat(FIRST_PART).apply_chat(parts("Hi", "there")) == "[user]Hi\nthere"
    assert chat(EITHER).apply_chat(talk) == "[user]Hi"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "the conversation is empty"),
        ("Hi", "a conversation is a list of messages, not str"),
        (["Hi"], "message 0 is str"),
        ([{"content": "Hi"}], "message 0 has no role"),
        ([{"role": 3, "content": "Hi"}], "message 0 has the role 3"),
        ([{"role": "user"}], r"message 0 \(user\) has no content"),
        ([{"role": "user", "content": None}], r"message 0 \(user\) has no content"),
        ([{"role": "user", "content": 5}], "a content of type int"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "part 0 is of type 'image_url'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "part 0 has no text"),
        ([{"role": "user", "content": [7]}], "part 0 is int"),
    ],
)
def test_what_is_no_conversation_is_refused_in_words(messages: Any, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        chat(PLAIN).apply_chat(messages)


def test_an_assistant_that_only_calls_tools_needs_no_content() -> None:
    talk = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]},
    ]
    template = "{% for m in messages %}{{ m.content or m.tool_calls[0].name }};{% endfor %}"
    assert chat(template).apply_chat(talk) == "2+2?;add;"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refused the messages: roles must alternate"),
        ("{{ messages[0].content + 1 }}", "failed on the messages .TypeError"),
        ("{{ messages[7].content.strip() }}", "refused the messages: "),
        ("{{ ''.__class__.__mro__ }}", "refused the messages: .*unsafe"),
        ("{% frobnicate %}", "template cannot be read .*unknown tag 'frobnicate'"),
        ("{% if %}", "template cannot be read"),
    ],
)
def test_a_template_that_fails_says_why(template: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chat(template).apply_chat(TALK)


def test_another_template_takes_the_place_of_the_first() -> None:
    tokenizer = chat(PLAIN)
    tokenizer.apply_chat(TALK)
    tokenizer._chat_template = "{{ messages[1].content }}"
    assert tokenizer.apply_chat(TALK) == "Hi <b>"


def test_a_tokenizer_can_be_copied_once_its_template_was_used() -> None:
    tokenizer = chat(PLAIN)
    text = tokenizer.apply_chat(TALK)
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert other.apply_chat(TALK) == text
        assert other.encode(text) == tokenizer.encode(text)


def test_a_prompt_begins_with_one_begin_token() -> None:
    """Written by a chat template, or by the user, or added by the tokenizer; never twice."""
    backend = trained_tokenizer()
    backend.add_special_tokens(["<s>"])
    begin = backend.token_to_id("<s>")
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    tokenizer = Tokenizer(backend, chat_template="{{ bos_token }}{{ messages[0].content }}", special_tokens=SPECIALS)
    text = tokenizer.apply_chat([{"role": "user", "content": "naïve"}])
    plain = tokenizer.encode("naïve")
    assert text == "<s>naïve"
    assert tokenizer.encode(text) == [begin, *plain]
    assert tokenizer.encode(text, add_special_tokens=True) == [begin, *plain]
    assert tokenizer.encode("naïve", add_special_tokens=True) == [begin, *plain]
    assert tokenizer.encode("", add_special_tokens=True) == [begin]
