"""Answers that were finished before an interruption, by the number of their question: only the rest is asked again."""

from __future__ import annotations

from pathlib import Path

from ssd_lab.common.json_lines import JsonLines
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
        self._lines, self._head = JsonLines(path), {"key": key}
        head, *kept = self._lines.read() or [self._head]
        if head != self._head:
            raise of_others(path)
        self._found: dict[int, tuple[list[int], bool]] = {
            number: (token_ids, finished) for number, token_ids, finished in kept
        }

    def __len__(self) -> int:
        return len(self._found)

    def get(self, number: int) -> tuple[list[int], bool] | None:
        """The answer's tokens, and whether it came to its end; None if it is still to be given."""
        return self._found.get(number)

    def add(self, answers: dict[int, tuple[list[int], bool]]) -> None:
        """Keep these too."""
        self._found |= answers
        path = self._lines.path
        path.parent.mkdir(parents=True, exist_ok=True)
        head = [] if path.exists() and path.stat().st_size else [self._head]
        self._lines.add(*head, *([number, *answer] for number, answer in answers.items()))

    def remove(self) -> None:
        """All that was asked is answered, and kept elsewhere."""
        self._lines.path.unlink(missing_ok=True)
