"""One asynchronous round is read in one sitting: the files that docs/architecture.md lists."""

from __future__ import annotations

import re

import rooms

MOST_FILES, MOST_LINES = 13, 2000
_LIST = re.compile(r"<!-- reading list: .*?-->\n(.*?)<!-- end of reading list -->", re.DOTALL)


def listed() -> list[str]:
    found = _LIST.search(rooms.PAGE.read_text(encoding="utf-8"))
    assert found is not None
    return re.findall(r"^\d+\. `([\w/]+\.py)`", found[1], re.MULTILINE)


def test_a_round_is_read_in_one_sitting() -> None:
    files = listed()
    assert 1 < len(files) <= MOST_FILES and len(set(files)) == len(files)
    assert sum(len((rooms.PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in files) <= MOST_LINES


def test_the_files_are_connected() -> None:
    """Behind the strategy, which only opens a worker, each imports another one of them or is imported by one."""
    graph, names = rooms.file_graph(), [f"ssd_lab.{name[:-3].replace('/', '.')}" for name in listed()]
    for name in names[1:]:
        others = set(names) - {name}
        assert others & graph[name] or any(name in graph[other] for other in others), name
