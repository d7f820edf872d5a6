"""Turns a HumanEval problem and a model's text into a program and what it is judged by."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Mapping
from typing import Any, Literal

from ssd_lab.bench.quality.sandbox import Program

Method = Literal["tests", "examples"]

# A function's body is over where one of these begins a line: the model goes on to something else.
_AFTER_BODY = re.compile(r"\n(?=class |def |async def |@|#|if |print\(|print |import |from |assert |```|<\|)")
_FENCE = re.compile(r"```[^\n]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_ARROW = re.compile(r"\s*(?:==|=>|->|=|➞|→|returns|should return|#\s*returns|#\s*=>)\s*")


def build_program(prompt: str, text: str, extra: Mapping[str, Any]) -> tuple[Program, Method] | None:
    """The candidate with the problem's `test` where `extra` has it, else with the examples of the docstring; None if
    there are neither. extra: the problem's `test` and `entry_point` (else: the last function of the prompt)."""
    entry_point = str(extra.get("entry_point") or last_function(prompt) or "")
    if not entry_point:
        return None
    program = candidate(prompt, text, entry_point)
    if extra.get("test"):
        return Program(program, f"{extra['test']}\n\ncheck({entry_point})\n"), "tests"
    examples = docstring_examples(prompt, entry_point)
    return (Program(program, examples=examples), "examples") if examples else None


def candidate(prompt: str, text: str, entry_point: str) -> str:
    """The program: the prompt continued by the text, or by the text's code block that defines the function anew."""
    defines = re.compile(rf"^\s*def {re.escape(entry_point)}\b", re.MULTILINE)
    blocks = _FENCE.findall(text)
    if blocks:
        whole = next((block for block in blocks if defines.search(block)), None)
        text = blocks[0] if whole is None else whole
    if defines.search(text):  # the prompt's own function has its docstring as body, and is defined again
        return f"{prompt}\n\n{text}\n"
    return prompt + _AFTER_BODY.split(f"\n{text}" if blocks else text, maxsplit=1)[0] + "\n"


def last_function(prompt: str) -> str | None:
    """The name of the function that the prompt leaves open."""
    names = re.findall(r"^def (\w+)", prompt, re.MULTILINE)
    return names[-1] if names else None


def docstring_examples(prompt: str, entry_point: str) -> list[tuple[str, str]]:
    """`(source, wanted output)` of the docstring: `>>>` examples, else lines such as `f(1, 2) == 3`."""
    docstring = _docstring(prompt, entry_point)
    try:
        shown = doctest.DocTestParser().get_examples(docstring)
    except ValueError:  # the docstring's indentation is not doctest's
        shown = []
    if shown:
        return [_as_value(example.source, example.want) for example in shown]
    found = (_line_example(line.strip(), entry_point) for line in docstring.splitlines())
    return [example for example in found if example is not None]


def _as_value(source: str, want: str) -> tuple[str, str]:
    """An example such as `>>> f(1) == 2` shows no output; what it means is True."""
    try:
        is_comparison = not want and isinstance(ast.parse(source, mode="eval").body, ast.Compare)
    except SyntaxError:
        is_comparison = False
    return (source, "True\n") if is_comparison else (source, want)


def _docstring(prompt: str, entry_point: str) -> str:
    try:
        tree = ast.parse(prompt)
    except SyntaxError:
        return ""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == entry_point)
    function = next(functions, None)
    return (ast.get_docstring(function) or "") if function else ""


def _line_example(line: str, entry_point: str) -> tuple[str, str] | None:
    """A call of the function, an arrow or equals sign, and a literal; anything else is prose."""
    start = line.find(f"{entry_point}(")
    if start < 0:
        return None
    for end in (match.end() for match in re.finditer(r"\)", line)):
        call, rest = line[start:end], line[end:]
        arrow = _ARROW.match(rest)
        if arrow is None or not _is_literal_call(call):
            continue
        value = rest[arrow.end() :].strip()
        for wanted in (value, value.rstrip(" .,;")):
            try:
                ast.literal_eval(wanted)
            except (ValueError, SyntaxError):
                continue
            return f"{call}\n", "" if wanted == "None" else f"{wanted}\n"  # Python shows nothing for None
    return None


def _is_literal_call(call: str) -> bool:
    try:
        node = ast.parse(call, mode="eval").body
        if not isinstance(node, ast.Call):
            return False
        for value in [*node.args, *(keyword.value for keyword in node.keywords)]:
            ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return False
    return True
