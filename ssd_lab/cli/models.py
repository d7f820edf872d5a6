"""`ssd-lab models`: the bundled models, or a look into any folder or GGUF file; `models inflate` is in its own file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ssd_lab.cli import models_inflate, options
from ssd_lab.cli.output import console, folded, print_json, show_progress
from ssd_lab.errors import ModelLoadError

if TYPE_CHECKING:
    from ssd_lab.models.loader import LoadedModel

SHOW = "show"


class ShowByDefault(TyperGroup):
    """`ssd-lab models FOLDER` is `ssd-lab models show FOLDER`: a look needs no verb."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb where there is none."""
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = [SHOW, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=ShowByDefault)
app.command(models_inflate.NAME, help=models_inflate.HELP)(models_inflate.command)


@app.command(SHOW, help="Load models, check and describe them (the verb may be left out).")
def show(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Folders, .gguf files or hub ids. None: bundled.", show_default=False)
    ] = None,
    pair: Annotated[bool, typer.Option("--pair", help="Check that the second can draft for the first.")] = False,
    dtype: options.Dtype = "auto",
    json_: options.Json = False,
) -> None:
    """Load each, which checks its files, names, shapes and sizes, and describe it."""
    from ssd_lab import demo

    places = {source: source for source in sources} if sources else bundled(demo.TARGET, demo.DRAFT)
    if pair and len(places) != 2:
        raise ModelLoadError(f"--pair takes a target and a draft, and {len(places)} models were named")

    from ssd_lab.models.compatibility import check_draft
    from ssd_lab.models.loader import load_model

    loaded = {name: load_model(place, dtype=dtype, progress=show_progress()) for name, place in places.items()}
    if pair or not sources:
        check_draft(*loaded.values())
    rows = {name: describe(model, places[name]) for name, model in loaded.items()}
    if json_:
        print_json(rows)
    else:
        console().print(_table(rows))


def bundled(target: Path, draft: Path) -> dict[str, str]:
    """The models that came with the package."""
    return {"target (bundled)": str(target), "draft (bundled)": str(draft)}


def describe(model: LoadedModel, place: str) -> dict[str, Any]:
    """Sizes of a model that was loaded, so every tensor its config asks for is there and fits."""
    config = model.config
    return {
        "source": place,
        "architecture": config.model_type,
        "parameters": config.num_parameters,
        "non_embedding_parameters": config.num_non_embedding_parameters,
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "vocabulary": config.vocab_size,
        "context": config.max_positions,
        "bytes_on_disk": _bytes_on_disk(place),
        "dtype_here": str(model.dtype).removeprefix("torch."),
        "tokenizer": model.tokenizer is not None,
        "chat_template": model.tokenizer is not None and model.tokenizer.has_chat_template,
        "bit_exact": model.decoder.row_padding.invariant,
    }


def _bytes_on_disk(place: str) -> int | None:
    from ssd_lab import demo

    path = demo.NAMED.get(place) or Path(place).expanduser()
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None


def _table(rows: dict[str, dict[str, Any]]) -> Any:
    shown = [
        (key.replace("_", " "), *(_shown(key, row[key]) for row in rows.values())) for key in next(iter(rows.values()))
    ]
    return folded(("", *rows), shown, left=len(rows) + 1)


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "bytes_on_disk":
        return f"{value / 1e6:.1f} MB"
    if key.endswith("parameters"):
        return f"{value / 1e6:.2f} M" if value < 1e9 else f"{value / 1e9:.2f} B"
    return f"{value:,}" if isinstance(value, int) else str(value)
