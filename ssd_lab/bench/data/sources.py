"""How a row of each source becomes a prompt: one function a set, and the two layouts that hold prompts already."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ssd_lab.bench.data.prompt import KEYS, BenchPrompt
from ssd_lab.errors import DatasetError

Row = Mapping[str, Any]
Fields = dict[str, Any]  # of a BenchPrompt, without `dataset`; `id` without the set's name
ReadRow = Callable[[Row, str], Fields]  # (row, where it stood: `test/12`) -> fields; KeyError names what is missing

_MT_BENCH = {"writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"}
_TURN = ("turns", "prompt", "question")
_FILE_PART = re.compile(
    r"(?<![a-z])((train|test|validation)(_[a-z]+)?|translation|summarization|qa|math_reasoning|rag)(?![a-z])"
)


def gsm8k(row: Row, place: str) -> Fields:
    """The question; reference: the worked answer with its `<<...>>` notes and `#### N`."""
    return {"id": place, "text": row["question"], "reference": row["answer"]}


def humaneval(row: Row, place: str) -> Fields:
    """The prompt as it is, with its last line end; reference: the canonical solution. Keeps the tests for scoring."""
    number = str(row.get("task_id", place)).rpartition("/")[2]
    extra = {key: row[key] for key in ("entry_point", "test") if key in row}
    return {"id": number, "text": row["prompt"], "reference": row.get("canonical_solution"), "extra": extra}


def alpaca(row: Row, place: str) -> Fields:
    """The instruction, then a blank line and the input where there is one."""
    given = (row.get("input") or "").strip()
    text = f"{row['instruction']}\n\n{row['input']}" if given else row["instruction"]
    return {"id": place, "text": text, "reference": row.get("output")}


def ultrafeedback(row: Row, place: str) -> Fields:
    """The instruction: `instruction` of the original, `prompt` or the first user message of the binarized forms."""
    for key in ("instruction", "prompt"):
        if isinstance(row.get(key), str):
            return {"id": place, "text": row[key]}
    first = next((turn["content"] for turn in row["chosen"] if turn["role"] == "user"), None)
    return {"id": place, "text": first}


def c4(row: Row, place: str) -> Fields:
    """The text as it is; a benchmark cuts it to the wanted length."""
    return {"id": place, "text": row["text"]}


def mt_bench(row: Row, place: str) -> Fields:
    """The first turn; reference: the question file's own for that turn, where it has one."""
    references = row.get("reference") or []
    return {
        "id": f"{row['category']}/{row.get('question_id', row.get('prompt_id', place))}",
        "text": _first_turn(row),
        "reference": references[0] if references else None,
        "extra": {"category": row["category"]},
    }


def spec_bench(row: Row, place: str) -> Fields:
    """The first turn; accepted answers are joined with `; ` (of MT-bench's questions, the first turn's is taken)."""
    file, _, number = place.rpartition("/")
    category = row.get("category", file)
    references = row.get("reference") or []
    if isinstance(references, str):
        references = [references]
    if category in _MT_BENCH:
        references = references[:1]
    return {
        "id": f"{category}/{row.get('question_id', number)}",
        "text": _first_turn(row),
        "reference": "; ".join(references) or None,
        "extra": {"category": category},
    }


def read_prompt(row: Row, *, dataset: str, read_row: ReadRow, place: str, where: str) -> BenchPrompt:
    """A prompt from any row that can hold one: ours (it names its set), the source's, or a bare `{"text": ...}`.

    place: its file's split and its number, for the id; where: file and line, for errors. Raises DatasetError.
    """
    if "dataset" in row:
        fields = _own_fields(row, dataset, place, where)
    else:
        try:
            fields = read_row(row, place)
        except KeyError as missing:
            if "text" not in row:
                raise DatasetError(
                    f"{where} has no {missing} (its keys: {', '.join(map(str, row))}): a row of {dataset} is its "
                    'source\'s, or {"text": ...}'
                ) from missing
            fields = {"id": place, "text": row["text"]}
    text = fields["text"]
    if not isinstance(text, str) or not text.strip():
        raise DatasetError(f"{where} has no text: {text!r}")
    if fields.get("reference") is not None and not isinstance(fields["reference"], str):
        raise DatasetError(f"{where}: reference is {fields['reference']!r}, and must be a text or null")
    identity = str(fields.pop("id"))
    if not identity.startswith(f"{dataset}/"):
        identity = f"{dataset}/{identity}"
    return BenchPrompt(id=identity, dataset=dataset, **fields)


def row_place(file_name: str, number: int) -> str:
    """Where a row stood, as ids show it: the split or part that its file's name tells, if any, and its number there."""
    part = _FILE_PART.search(file_name.lower())
    return f"{part[0]}/{number}" if part else str(number)


def _own_fields(row: Row, dataset: str, place: str, where: str) -> Fields:
    """A line that `data prepare` wrote, or of the same layout with `prompt` in `text`'s place."""
    if row["dataset"] != dataset:
        raise DatasetError(f"{where} belongs to {row['dataset']!r}, and {dataset} was asked for")
    key = "text" if "text" in row else "prompt"
    if key not in row:
        raise DatasetError(f'{where} has no text (its keys: {", ".join(map(str, row))}): "text" or "prompt" is needed')
    return {
        "id": row.get("id", place),
        "text": row[key],
        "reference": row.get("reference"),
        "extra": {name: value for name, value in row.items() if name not in (*KEYS, key)},
    }


def _first_turn(row: Row) -> Any:
    for key in _TURN:
        if key in row:
            return row[key] if isinstance(row[key], str) else row[key][0]
    raise KeyError(_TURN[0])
