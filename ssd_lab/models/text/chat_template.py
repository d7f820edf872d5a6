"""Chat templates: Jinja programs that come with a model and write a conversation as one text.

What a template sees is what transformers gives it: `messages`, `tools` and `documents` (None), `add_generation_prompt`,
the special tokens, `raise_exception`, `strftime_now`, `tojson`, `break` and `continue`, `{% generation %}`.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Macro

from ssd_lab.errors import ConfigError
from ssd_lab.models.text.chat_messages import Message, checked, joined, parts_of

TODAY = datetime.date(2024, 7, 26)  # told to every chat template: a prompt must not depend on the day (Llama's default)
_PROBE, _SECOND, _STRAY = "ssd-lab-probe", "ssd-lab-second", "ssd-lab-stray"


class ChatTemplate:
    """One template, compiled. Raises ConfigError if it is no Jinja template."""

    def __init__(self, text: str, special_tokens: Mapping[str, str]) -> None:
        self.text = text
        self._special_tokens = dict(special_tokens)
        try:
            self._program = _environment().from_string(text)
        except jinja2.TemplateError as error:
            raise ConfigError(
                f"this model's chat template cannot be read ({type(error).__name__}: {error}): "
                "give plain text prompts (chat=False)"
            ) from error

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
        """The text of a conversation. Raises PromptError for what is no conversation, and ConfigError, with the
        template's own words, where the template refuses it.
        """
        talk = [self._adapted(message) for message in checked(messages)]
        try:
            return self._run(talk, add_generation_prompt)
        except jinja2.TemplateError as error:
            raise ConfigError(f"the chat template refused the messages: {error}") from error
        except Exception as error:  # a template is a program: it may fail in any way
            raise ConfigError(f"the chat template failed on the messages ({type(error).__name__}: {error})") from error

    def _run(self, messages: list[Message], add_generation_prompt: bool) -> str:
        return self._program.render(
            **{
                **self._special_tokens,
                "messages": messages,
                "tools": None,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
            }
        )

    def _adapted(self, message: Message) -> Message:
        """Content in a form that this template reads: text, or a list of parts."""
        content = message.get("content")
        if isinstance(content, str):
            wrap = not self._takes_text and self._takes_one_part
            return {**message, "content": parts_of(content)} if wrap else message
        if isinstance(content, list) and not self._takes_parts:
            text = joined(content)
            wrap = not self._takes_text and self._takes_one_part
            return {**message, "content": parts_of(text) if wrap else text}
        return message

    @cached_property
    def _takes_text(self) -> bool:
        return self._shows(_PROBE, _PROBE)

    @cached_property
    def _takes_one_part(self) -> bool:
        return self._shows([_probe_part(_PROBE)], _PROBE)

    @cached_property
    def _takes_parts(self) -> bool:
        return self._shows([_probe_part(_PROBE), _probe_part(_SECOND)], _PROBE, _SECOND)

    def _shows(self, content: str | list[dict[str, str]], *texts: str) -> bool:
        """Does the template write the texts of such content, and not the list as Python or JSON prints it?"""
        try:
            shown = self._run([{"role": "user", "content": content}], False)
        except Exception:  # refused, or a program that fails on it
            return False
        return all(text in shown for text in texts) and _STRAY not in shown


def _probe_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text, _STRAY: ""}


class _Generation(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}`: marks an assistant's words for training; here they are plain text."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's interface

    def parse(self, parser: Parser) -> nodes.Node:
        """The block, called in a scope of its own, as transformers has it."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Macro) -> str:
        return caller()


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = TODAY.strftime
    environment.filters["tojson"] = _json
    return environment


def _json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON for a prompt: Jinja's own filter would escape it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
