"""The front end as one ES module, made from the files of `static/` when it is needed: nothing to build or to fetch.

Each file becomes a function's body and each import a reading of what another returned, so names stay private to files.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function (\w+)|(?:const|class) (\w+))", re.MULTILINE)


def bundle(entry: str, exports: str, folder: Path = STATIC) -> str:
    """`<entry>.js` of `folder` and all it imports; `exports` is the last line, in which `in_<entry>` has its names.

    Raises ValueError on a form of import or export that is not understood here.
    """
    names = _in_order(entry, folder)
    return "\n".join([*(_as_function(folder / f"{name}.js") for name in names), exports]) + "\n"


@cache
def widget_module() -> str:
    """The module that anywidget loads: its default export has `render`."""
    return bundle("widget", "export default { render: in_widget.render };")


@cache
def page_script() -> str:
    """The script of a standalone page, which leaves `mount` and `mountSpeed` in `ssdLab`."""
    return bundle("page", "globalThis.ssdLab = in_page;")


@cache
def style() -> str:
    """The style sheet of every view."""
    return (STATIC / "style.css").read_text(encoding="utf-8")


def _in_order(entry: str, folder: Path = STATIC) -> list[str]:
    """The files that `entry` needs, each after those it imports."""
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"{' -> '.join((*path, name))}: the front end's files import each other in a circle")
        if name in order:
            return
        for _, other in _IMPORT.findall((folder / f"{name}.js").read_text(encoding="utf-8")):
            visit(other, (*path, name))
        order.append(name)

    visit(entry, ())
    return order


def _as_function(path: Path) -> str:
    name, source = path.stem, path.read_text(encoding="utf-8")
    exported = [function or value for function, value in _EXPORT.findall(source)]
    body = _IMPORT.sub(lambda match: f"const {{{match[1].replace(' as ', ': ')}}} = in_{match[2]};", source)
    body = _EXPORT.sub("", body)
    left = re.search(r"^(import|export)\b.*", body, re.MULTILINE)
    if left is not None:
        raise ValueError(f'{name}.js: {left[0]!r} is neither `import {{..}} from "./x.js"` nor `export function/const`')
    return f"const in_{name} = (() => {{\n{body}\nreturn {{ {', '.join(exported)} }};\n}})();"
