"""The pictures of the concept pages: `python docs/images/draw.py` writes round.svg, lanes.svg and tree.svg."""

from __future__ import annotations

from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent
TARGET, AHEAD, FALLBACK, WAIT, INK = "#0072B2", "#00704F", "#B64400", "#BBBBBB", "#222222"
DRAFT = "#E69F00"  # while the target waits; the colours are those of the views


class Picture:
    """An SVG under construction; a second cue (text or shape) stands beside every colour."""

    def __init__(self, width: int, height: int, label: str) -> None:
        self.head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{escape(label)}" font-family="sans-serif" font-size="13" fill="{INK}">'
            f'<rect width="{width}" height="{height}" fill="white"/>'
        )
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, anchor: str = "start", fill: str = INK, size: int = 13) -> None:
        """Words at a place; anchor: start, middle or end."""
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{fill}" font-size="{size}">{escape(words)}</text>'
        )

    def box(
        self, x: float, y: float, w: float, h: float, words: str, fill: str, ink: str = "white", dash: bool = False
    ) -> None:
        """A rounded box with words in its middle; dashed: rejected or unused."""
        line = f'stroke="{INK}" stroke-dasharray="4 3"' if dash else 'stroke="none"'
        self.parts.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="4" fill="{fill}" {line}/>')
        self.text(x + w / 2, y + h / 2 + 4.5, words, "middle", ink)

    def line(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """A thin line."""
        self.parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}" stroke-width="1.2"/>')

    def save(self, name: str) -> None:
        """Write it beside this file."""
        (FOLDER / name).write_text(self.head + "".join(self.parts) + "</svg>\n", encoding="utf-8")


def draw_round() -> None:
    """One round: drafted, verified, kept."""
    picture = Picture(720, 190, "A round: four drafted tokens, two kept, the third rejected, a recovery token")
    picture.text(8, 30, "draft guesses")
    picture.text(8, 92, "target says")
    picture.text(8, 156, "into the text")
    for index, (guess, choice) in enumerate(
        zip(["the", "sun", "is", "hot"], ["the", "sun", "was", "cold"], strict=True)
    ):
        x = 130 + index * 110
        kept = guess == choice
        picture.box(x, 12, 96, 28, guess, DRAFT if index < 3 else "white", INK, dash=not kept)
        shown = choice if index <= 2 else "(not used)"
        picture.box(
            x, 74, 96, 28, shown, TARGET if index <= 2 else "white", "white" if index <= 2 else INK, dash=index > 2
        )
        picture.line(x + 48, 42, x + 48, 72)
        if index < 2:
            picture.text(x + 56, 62, "=")
            picture.box(x, 138, 96, 28, f"{guess} ✓", DRAFT, INK)
        elif index == 2:
            picture.text(x + 56, 62, "≠")
            picture.box(x, 138, 96, 28, "was", TARGET)
            picture.text(x + 104, 157, "recovery token")
    picture.save("round.svg")


def draw_lanes() -> None:
    """Synchronous above asynchronous: hit, hit, miss."""
    picture = Picture(760, 250, "Synchronous rounds alternate; asynchronous rounds overlap, except after a miss")

    def lane(y: int, name: str, spans: list[tuple[int, int, str, str]]) -> None:
        picture.text(8, y + 19, name)
        for start, end, words, colour in spans:
            picture.box(80 + start, y, end - start - 3, 28, words, colour, INK if colour in (WAIT, DRAFT) else "white")

    picture.text(8, 18, "synchronous: a round lasts 1 + T")
    lane(
        28,
        "target",
        [(0, 90, "waits", WAIT), (90, 230, "verify", TARGET), (230, 320, "waits", WAIT), (320, 460, "verify", TARGET)],
    )
    lane(60, "draft", [(0, 90, "k steps", DRAFT), (230, 320, "k steps", DRAFT)])
    picture.text(8, 128, "asynchronous: max(1, T) after a hit, 1 + fallback after a miss")
    lane(
        138,
        "target",
        [
            (0, 140, "verify", TARGET),
            (140, 280, "verify", TARGET),
            (280, 370, "waits", WAIT),
            (370, 510, "verify", TARGET),
        ],
    )
    lane(
        170,
        "draft",
        [
            (0, 110, "tree", AHEAD),
            (140, 250, "tree", AHEAD),
            (280, 370, "fallback", FALLBACK),
            (370, 480, "tree", AHEAD),
        ],
    )
    for x, words in ((140, "hit"), (280, "miss")):
        picture.line(80 + x, 134, 80 + x, 208)
        picture.text(80 + x, 224, words, "middle")
    picture.text(590, 224, "time")
    picture.line(625, 220, 750, 220)
    for y in (215, 225):
        picture.line(742, y, 750, 220)
    picture.save("lanes.svg")


def draw_tree() -> None:
    """The tree of a round with k = 2 and fan-out 2, 1, 1."""
    picture = Picture(720, 250, "Committed text, a chain of two drafted tokens, and branches for each accepted length")
    picture.box(8, 106, 120, 30, "committed text", "#555555")
    picture.box(170, 106, 70, 30, "d1", TARGET)
    picture.box(280, 106, 70, 30, "d2", TARGET)
    picture.line(128, 121, 170, 121)
    picture.line(240, 121, 280, 121)
    picture.text(260, 98, "under verification", "middle", size=12)
    branches = [(128, 10, "r", 0), (128, 48, "r'", 0), (350, 165, "r", 2), (240, 205, "r", 1)]
    for x, y, word, accepted in branches:
        first = x + 42
        picture.line(x, 121, first, y + 14)
        for index in range(3):
            picture.box(
                first + index * 62, y, 50, 28, word if index == 0 else f"t{index}", TARGET if index == 0 else AHEAD
            )
            if index:
                picture.line(first + index * 62 - 12, y + 14, first + index * 62, y + 14)
        picture.text(first + 188, y + 18, f"if {accepted} accepted", size=12)
    picture.text(470, 120, "r: a candidate recovery token", size=12)
    picture.text(470, 138, "t1, t2: the k tokens prepared for it", size=12)
    picture.save("tree.svg")


def main() -> None:
    """Draw all."""
    draw_round()
    draw_lanes()
    draw_tree()


if __name__ == "__main__":
    main()
