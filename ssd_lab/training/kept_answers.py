"""Answers that were finished before an interruption, by the number of their question: only the rest is asked again."""

from __future__ import annotations

import json
from pathlib import Path

from ssd_lab.errors import ConfigError


def of_others(path: Path) -> ConfigError:
    """The error of a file that was made for something else."""
    return ConfigError(
        f"{path} holds answers to other prompts, of another target or with other settings: "
        "remove it, or take another output folder"
    )


class KeptAnswers:
    """A file of JSON lines, made when there is something to keep. key: of what was asked, in its first line.

    Raises ConfigError if the file holds answers to something else.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._found: dict[int, tuple[list[int], bool]] = {}
        if not path.exists():
            return
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        if json.loads(first)["key"] != key:
            raise of_others(path)
        for line in lines:
            number, token_ids, finished = json.loads(line)
            self._found[number] = (token_ids, finished)

    def __len__(self) -> int:
        return len(self._found)

    def get(self, number: int) -> tuple[list[int], bool] | None:
        """The answer's tokens, and whether it came to its end; None if it is still to be given."""
        return self._found.get(number)

    def add(self, answers: dict[int, tuple[list[int], bool]]) -> None:
        """Keep these too."""
        self._found |= answers
        self._path.parent.mkdir(parents=True, exist_ok=True)
        head = [] if self._path.exists() else [json.dumps({"key": self._key})]
        with self._path.open("a", encoding="utf-8") as file:
            for line in [*head, *(json.dumps([number, *answer]) for number, answer in answers.items())]:
                file.write(line + "\n")

    def remove(self) -> None:
        """All that was asked is answered, and kept elsewhere."""
        self._path.unlink(missing_ok=True)
