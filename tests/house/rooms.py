"""The rooms of the package, from the ground up, and who imports whom; `python tests/house/rooms.py` draws them.

A room is a package of `ssd_lab` or a module beside them. It may import rooms of lower floors only, at the top of a
file, inside a function or for types alike. The one list of exceptions is `ssd_lab/common/late.py`.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "ssd_lab"
PAGE = PACKAGE.parent / "docs" / "architecture.md"
FLOORS = (
    ("errors", "devices", "demo", "__init__"),
    ("settings", "config", "common", "decoding"),
    ("kernels", "learning", "client"),
    ("models", "trace"),
    ("execution", "display", "simulate"),
    ("rounds", "explain", "widgets"),
    ("phases", "links"),
    ("hosts",),
    ("ranks",),
    ("drafting",),
    ("strategies", "engine"),
    ("assembly", "results"),
    ("llm",),
    ("api", "profile", "training"),
    ("check", "tune", "chat", "serve"),
    ("bench",),
    ("notebooks",),
    ("cli",),
)
_BLOCK = re.compile(r"(<!-- rooms: made by tests/house/rooms.py -->\n).*?(<!-- end of rooms -->)", re.DOTALL)


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "ssd_lab")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module is not None and node.module.split(".")[0] == "ssd_lab":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in known else node.module


@cache
def file_graph() -> dict[str, set[str]]:
    """Which file imports which."""
    known = modules()
    return {name: {each for each in imports(path, known) if each != name} for name, path in known.items()}


def room_of(module: str) -> str:
    """The room that a module is in."""
    return [*module.split("."), "__init__"][1]


@cache
def room_graph() -> dict[str, dict[str, list[str]]]:
    """Which room imports which, with the files that do."""
    graph: dict[str, dict[str, list[str]]] = {}
    for module, imported in file_graph().items():
        mine = graph.setdefault(room_of(module), {})
        for other in imported:
            if room_of(other) != room_of(module):
                mine.setdefault(room_of(other), []).append(f"{module} imports {other}")
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some circle of the graph, its first member once more at its end; empty if there is none."""
    finished: set[str] = set()
    for start in graph:
        path, unseen = [start], [iter(sorted(graph[start]))]  # down one branch, and what is left at each of its steps
        while path:
            following = next((each for each in unseen[-1] if each not in finished and each in graph), None)
            if following is None:
                unseen.pop()
                finished.add(path.pop())
            elif following in path:
                return [*path[path.index(following) :], following]
            else:
                path.append(following)
                unseen.append(iter(sorted(graph[following])))
    return []


def purpose(room: str) -> str:
    """What the room's docstring says first."""
    path = PACKAGE / room / "__init__.py"
    source = (path if path.exists() else PACKAGE / f"{room}.py").read_text(encoding="utf-8")
    return " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())


def picture() -> str:
    """The floors from the top down, each room with its purpose."""
    lines = []
    for height, rooms in reversed(list(enumerate(FLOORS))):
        for place, room in enumerate(each for each in rooms if each != "__init__"):
            name = room + ("/" if (PACKAGE / room).is_dir() else ".py")
            first, *more = textwrap.wrap(purpose(room), 92)
            lines.append(f"{height if place == 0 else '':>3} {name:<13}{first}".rstrip())
            lines += [" " * 17 + each for each in more]
    return "\n".join(["```text", *lines, "```"])


def page_with_picture(text: str) -> str:
    """The page with its block of rooms as it should be."""
    return _BLOCK.sub(lambda match: f"{match[1]}{picture()}\n{match[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(page_with_picture(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
