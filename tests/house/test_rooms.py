"""The floor plan: arrows between rooms point down, no file is part of a circle, and the page shows what is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib

import rooms

from ssd_lab.common import late


def test_every_room_has_a_floor_and_every_floor_its_rooms() -> None:
    there = {rooms.room_of(module) for module in rooms.modules()} - {"ssd_lab"}
    assert there == {room for floor in rooms.FLOORS for room in floor}


def test_no_room_imports_one_of_its_own_floor_or_above() -> None:
    height = {room: number for number, floor in enumerate(rooms.FLOORS) for room in floor}
    upward = [
        place
        for room, imported in rooms.room_graph().items()
        for other, places in imported.items()
        if height[other] >= height[room]
        for place in places
    ]
    assert upward == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert rooms.circle(rooms.file_graph()) == []


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}
    assert rooms.circle(graph) == ["a", "b", "c", "a"]
    assert rooms.circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_exceptions_are_those_of_the_table_and_exist() -> None:
    for name in late._HOMES:
        assert callable(late.late(name)) or name.isupper()
    source = {path: path.read_text(encoding="utf-8") for path in rooms.modules().values()}
    importers = {
        path.relative_to(rooms.PACKAGE).as_posix() for path, text in source.items() if "import_module(" in text
    }
    # the first and the last load their own names on first use, the command line its commands, and parsing what a user
    # names on the command line
    assert importers == {
        "__init__.py", "cli/main.py", "common/late.py", "common/parsing.py", "widgets/__init__.py",
    }  # fmt: skip


def test_the_page_shows_these_rooms() -> None:
    text = rooms.PAGE.read_text(encoding="utf-8")
    assert rooms.picture() in text, "python tests/house/rooms.py draws them again"


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, ssd_lab; print(*sorted(set(sys.modules) & {'torch', 'numpy', 'pydantic', 'transformers'}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


def test_the_package_does_not_import_what_is_outside_the_wheel() -> None:
    outside = re.compile(r"^\s*(?:from|import) (?:studies|tests)\b", re.MULTILINE)
    assert [module for module, path in rooms.modules().items() if outside.search(path.read_text("utf-8"))] == []
    project = tomllib.loads((rooms.PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["ssd_lab", "ssd_lab.*"]


def test_the_maths_knows_torch_and_numpy_only() -> None:
    for module, path in rooms.modules().items():
        if rooms.room_of(module) == "decoding":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            outside = {
                name.split(".")[0]
                for node in ast.walk(tree)
                for name in (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
            }
            assert outside <= set(sys.stdlib_module_names) | {"torch", "numpy", "ssd_lab", "__future__"}, module
