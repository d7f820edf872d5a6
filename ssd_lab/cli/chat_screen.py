"""How a chat looks: colours and styles by a token's origin, marks where there are no colours, notes beside answers."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from ssd_lab.cli.output import console
from ssd_lab.settings import no_colour

if TYPE_CHECKING:
    from ssd_lab.chat.pieces import AnswerNumbers, Piece
    from ssd_lab.display.tables import Table

# colour-blind safe (Okabe-Ito), and a way to write the letters that is seen without colours: what the draft gave is
# underlined, what a fallback gave is slanted too, what the target said itself is bold
STYLES = {
    "hit": "underline #009E73",
    "draft": "underline #0072B2",
    "tree": "underline #0072B2",
    "custom": "underline #0072B2",
    "jit": "italic underline #E69F00",
    "fast": "italic underline #E69F00",
    "recovery": "bold #D55E00",
    "bonus": "bold #CC79A7",
    "target": "",
}
MARKS = {
    "hit": "h", "draft": "d", "tree": "t", "custom": "c", "jit": "j", "fast": "f", "recovery": "r", "bonus": "b",
    "target": "",
}  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # but for tabs and line ends


class Screen:
    """Answers go to stdout; notes do too at a terminal, and to stderr where stdout is a file or a pipe.

    marks: write `<h>` and the like before tokens of another origin than those before; None: where a terminal shows no
    colours.
    """

    def __init__(self, *, marks: bool | None = None) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._out = console()
        self._notes = console(stderr=not self.is_terminal)
        plain = no_colour() or self._out.color_system is None
        self.marks = (self.is_terminal and plain) if marks is None else marks
        self._last: str | None = None

    def note(self, text: str, style: str = "dim") -> None:
        """A line that is no answer."""
        from rich.text import Text

        self._notes.print(Text(shown(text), style=style), soft_wrap=True)

    def error(self, text: str) -> None:
        """What was refused, in one line."""
        from rich.text import Text

        console(stderr=True).print(Text(f"error: {' '.join(shown(text).split())}", style="bold red"), soft_wrap=True)

    def table(self, table: Table) -> None:
        """What a command shows."""
        self._out.print(table.to_rich())

    def lines(self, text: str) -> None:
        """What a command says."""
        from rich.text import Text

        self._out.print(Text(shown(text)), soft_wrap=True)

    def begin(self) -> None:
        """An answer begins."""
        self._last = None

    def piece(self, piece: Piece) -> None:
        """The next piece of an answer, at once."""
        from rich.text import Text

        text = Text()
        mark = MARKS.get(piece.origin or "", "")
        if self.marks and piece.origin != self._last and mark:
            text.append(f"<{mark}>", style="dim")
        self._last = piece.origin
        text.append(shown(piece.text), style=STYLES.get(piece.origin or "", ""))
        self._out.print(text, end="", soft_wrap=True)
        self._out.file.flush()

    def end(self, numbers: AnswerNumbers) -> None:
        """The answer is over."""
        from ssd_lab.chat.numbers import line_of

        self._out.print()
        self.note(line_of(numbers))
        if numbers.origins:
            self._origins(numbers.origins)

    def _origins(self, counts: dict[str, int]) -> None:
        """How many tokens came from where, each name written as its tokens are: a legend beside the text."""
        from rich.text import Text

        text = Text("tokens by origin: ", style="dim")
        for number, (origin, style) in enumerate((each, STYLES[each]) for each in STYLES if each in counts):
            mark = f"<{MARKS[origin]}>" if self.marks and MARKS[origin] else ""
            text.append(", " if number else "")
            text.append(mark).append(origin, style=style).append(f" {counts[origin]}")
        self._notes.print(text, soft_wrap=True)


def shown(text: str) -> str:
    """The text without what would move the cursor or change the terminal: a model may say anything."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)
