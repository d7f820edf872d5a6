"""The models in the reader's page: files that are made when the site is, of the bundled pair and docs/in_page."""

from __future__ import annotations

import hashlib
import json
import sys
from html import escape
from pathlib import Path
from typing import Any

import executed
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import ssd_lab
from ssd_lab import demo
from ssd_lab.widgets.bundle import bundle
from ssd_lab.widgets.page import script_json

SOURCES = executed.ROOT / "docs" / "in_page"
sys.path.insert(0, str(SOURCES))
import convert  # noqa: E402 (beside the modules that it is made for)
import kernel  # noqa: E402

FOLDER = "assets/in_page"
KEPT = executed.ROOT / "build" / "in_page"
MODELS = {"target": demo.TARGET, "draft": demo.DRAFT}
SCRIPTS = {
    "target_worker": "in_target_worker.startTargetWorker(self);",
    "draft_worker": "in_draft_worker.startDraftWorker(self);",
    "page": "globalThis.ssdLabInPage = in_page;",
}
PLACE = '<div class="try-it"></div>'
STRATEGIES = ("async_tree", "sync_chain", "prompt_lookup", "autoregressive")
LARGEST = {"k": 16, "f": 8}  # draft.js has room for so many branches
USUAL = {"f": 3}
PROMPT = "A train travels at 60 miles per hour for 4 hours. How far does it go?"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add models, tokenizer, kernel and scripts."""
    for path, content in made().items():
        given = {"abs_src_path": str(content)} if isinstance(content, Path) else {"content": content}
        files.append(File.generated(config, f"{FOLDER}/{path}", **given))
    return files


def made() -> dict[str, str | bytes | Path]:
    """Every file of `FOLDER`: its content, or where that lies."""
    models = {f"{name}.bin": model_file(name, folder) for name, folder in MODELS.items()}
    scripts = {f"{name}.js": script(name, last) for name, last in SCRIPTS.items()}
    return {**models, **scripts, "tokenizer.json": convert.tokenizer(demo.TARGET), "kernel.wasm": kernel.module()}


def script(entry: str, last: str, folder: Path = SOURCES / "js") -> str:
    """The modules that `entry` needs as one script, whose names are its own."""
    return f"(() => {{\n{bundle(entry, last, folder)}}})();\n"


def on_page_content(html: str, **_: Any) -> str:
    """Put the button where the page leaves a place for it."""
    return html.replace(PLACE, part_of_page()) if PLACE in html else html


def model_file(name: str, folder: Path) -> Path:
    """The model as the page reads it, made once and kept in build/in_page."""
    digest = hashlib.sha256()
    for source in (folder / "model.safetensors", folder / "config.json", SOURCES / "convert.py", SOURCES / "kernel.py"):
        digest.update(source.read_bytes())
    kept = KEPT / f"{name}.{digest.hexdigest()[:16]}.bin"
    if not kept.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        content = convert.converted(folder)
        unfinished = kept.with_suffix(f".{id(content)}")
        unfinished.write_bytes(content)
        unfinished.replace(kept)  # whole or not at all: several may make the site at once
    return kept


def part_of_page() -> str:
    """Button, progress, words, and what the scripts have to know."""
    size = sum(model_file(name, folder).stat().st_size for name, folder in MODELS.items())
    settings = {
        "folder": f"{FOLDER}/",
        "bytes": size,
        "strategies": {name: schema(name) for name in STRATEGIES},
        "defaults": {
            "strategy": STRATEGIES[0],
            "prompt": PROMPT,
            "max_tokens": 96,
            "temperature": 0,
            "seed": 0,
        },
    }
    load = f"Load the two models ({size / 1e6:.0f} MB)"
    return f"""<div class="try-it">
<script type="application/json" data-try="settings">{script_json(settings)}</script>
<p><button type="button" class="md-button md-button--primary" data-try="load">{load}</button>
<progress data-try="bar" aria-label="models loaded" value="0" hidden></progress></p>
<p role="status" aria-live="polite" data-try="words"></p>
<noscript><p>The models run as a script of this page: switch JavaScript on to try them.</p></noscript>
<div data-try="stage"></div>
<p><button type="button" class="md-button" data-try="keep" hidden>Save the trace of this run</button></p>
</div>
<script src="{escape(FOLDER)}/page.js"></script>
<script src="assets/try_it.js"></script>"""


def schema(name: str) -> dict[str, Any]:
    """The strategy's own JSON schema, with the fields that the page knows and the limits that it has."""
    whole = ssd_lab.strategies()[name].model_json_schema()
    fields: dict[str, Any] = {}
    for field in ("k", "f", "saguaro_c"):
        if field not in whole["properties"]:
            continue
        given = json.loads(json.dumps(whole["properties"][field]))
        kind = next(one for one in given.pop("anyOf", [given]) if one.get("type") != "null")
        fields[field] = {**given, **kind, "default": given.get("default") or USUAL.get(field)}
        if field in LARGEST:
            fields[field]["maximum"] = LARGEST[field]
    return {"description": whole.get("description", ""), "properties": fields}
