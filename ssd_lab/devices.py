"""Which devices compute the target and which the draft: the record, and what of it is wrong whatever is run."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

_NAME = re.compile(r"cpu|cuda:\d+|rank:\d+")
RANK = "rank:"


class DevicePlacement(BaseModel):
    """Devices by name: `cuda:N`, or `cpu`, of which each entry is a process of its own, or `rank:N`, the device of a
    process that `torchrun` started, on whatever host.

    It can be made of a text, too: `target=cuda:0,cuda:1 draft=cuda:2`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: tuple[str, ...] = Field(description="each holds a share of the target's heads and columns")
    draft: tuple[str, ...] = Field(
        (), description="each drafts for a part of the batch; a GPU may stand there twice; none: the target's first"
    )
    draft_parallel: Literal["rows", "tensor"] = Field(
        "rows", description="several draft devices share the batch's rows (rows), or one draft's weights (tensor)"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, given: Any) -> Any:
        fields = given
        if isinstance(given, str):
            fields = dict(part.partition("=")[::2] for part in given.split())
            if not fields or not all(fields.values()):
                raise ValueError("write it as target=cuda:0,cuda:1 draft=cuda:2 (what follows = without blanks)")
        if isinstance(fields, dict) and ("target" not in fields or not fields.keys() <= cls.model_fields.keys()):
            raise ValueError(
                f"it has {', '.join(map(repr, fields)) or 'nothing'}; give target, and perhaps "
                f"{' and '.join(name for name in cls.model_fields if name != 'target')}"
            )
        return fields

    @field_validator("target", "draft", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        return given.split(",") if isinstance(given, str) else given

    @field_validator("target", "draft")
    @classmethod
    def _known_names(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.field_name == "target" and not names:
            raise ValueError("it names no device: name one at least")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no device: write cuda:0, cuda:1, ... or cpu (under torchrun: rank:0, rank:1, ...)"
                )
        return names

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for names in (self.target, self.draft if self.draft_parallel == "tensor" else ()):
            twice = sorted({name for name in names if name != "cpu" and names.count(name) > 1})
            if twice:
                raise ValueError(
                    f"{', '.join(twice)} stands there twice: a device takes one share of a model's weights"
                )
        kinds = {name.partition(":")[0] for name in (*self.target, *self.draft)}
        if "rank" in kinds and (len(kinds) > 1 or self.target[0] != "rank:0" or "rank:0" in self.draft):
            raise ValueError(
                f"{self}: with processes of torchrun the first of target is rank:0, which runs the program, and all "
                "others are rank:1, rank:2, ...: target=rank:0 draft=rank:1"
            )
        if len(kinds) > 1:
            raise ValueError("GPUs and CPUs are mixed: target and draft work on devices of one kind")
        if self.draft_parallel == "tensor" and len(self.draft) < 2:
            raise ValueError(
                f"draft_parallel='tensor' splits a draft over its devices, and draft names {len(self.draft)}: name "
                "two or more, or leave draft_parallel out"
            )
        return self

    @property
    def first_draft(self) -> str:
        """Where the draft works, or the first of several."""
        return self.draft[0] if self.draft else self.target[0]

    @property
    def names_ranks(self) -> bool:
        """Are they processes of torchrun?"""
        return self.target[0].startswith(RANK)

    def __str__(self) -> str:
        """As it can be written on a command line."""
        parts = [f"target={','.join(self.target)}"]
        if self.draft:
            parts.append(f"draft={','.join(self.draft)}")
        if self.draft_parallel != "rows":
            parts.append(f"draft_parallel={self.draft_parallel}")
        return " ".join(parts)


def rank_of(name: str) -> int:
    """The number of a process of torchrun."""
    return int(name.removeprefix(RANK))
