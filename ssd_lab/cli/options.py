"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MODELS, _SAMPLING, _STRATEGY, _ENGINE = "Models", "Sampling", "Strategy", "Engine"

Prompts = Annotated[
    list[str] | None, typer.Argument(help="Prompts; - reads stdin, one a line. None: canned ones.", show_default=False)
]
PromptFile = Annotated[
    str | None, typer.Option("--prompt-file", help=".txt (one a line) or .jsonl (prompt or text); - is stdin.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Take the first so many prompts.")]

Target = Annotated[
    str | None,
    typer.Option("--target", help="Hub id, folder or .gguf file. None: bundled.", rich_help_panel=_MODELS),
]
Draft = Annotated[
    str | None, typer.Option("--draft", help="Hub id, folder or .gguf file. None: bundled.", rich_help_panel=_MODELS)
]
Chat = Annotated[
    bool | None,
    typer.Option(
        "--chat/--no-chat", help="Wrap prompts in the chat template if there is one.", rich_help_panel=_MODELS
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", rich_help_panel=_ENGINE)]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.", rich_help_panel=_ENGINE)]
Batch = Annotated[int | None, typer.Option("--batch", help="Sequences decoded together.", rich_help_panel=_ENGINE)]

Temperature = Annotated[float, typer.Option("--temperature", "-t", help="0 is greedy.", rich_help_panel=_SAMPLING)]
TopP = Annotated[float, typer.Option("--top-p", help="1 switches it off.", rich_help_panel=_SAMPLING)]
TopK = Annotated[int, typer.Option("--top-k", help="0 switches it off.", rich_help_panel=_SAMPLING)]
MinP = Annotated[float, typer.Option("--min-p", help="0 switches it off.", rich_help_panel=_SAMPLING)]
MaxTokens = Annotated[int, typer.Option("--max-tokens", "-n", help="Longest output.", rich_help_panel=_SAMPLING)]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same text.", rich_help_panel=_SAMPLING)]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", help="Text that ends an output; repeatable.", rich_help_panel=_SAMPLING)
]
IgnoreEos = Annotated[
    bool, typer.Option("--ignore-eos", help="Do not stop where the model does.", rich_help_panel=_SAMPLING)
]

Strategy = Annotated[
    str,
    typer.Option("--strategy", "-s", help='A name, or "name field=value ...".', rich_help_panel=_STRATEGY),
]
Strategies = Annotated[
    list[str] | None,
    typer.Option("--strategy", "-s", help='Repeatable; "async_tree f=1" sets fields.', rich_help_panel=_STRATEGY),
]
Lookahead = Annotated[
    int | None, typer.Option("--k", help="Draft tokens verified in one round.", rich_help_panel=_STRATEGY)
]
FanOut = Annotated[
    int | None,
    typer.Option("--f", help="Outcomes prepared at each accepted length.", rich_help_panel=_STRATEGY),
]
Fallback = Annotated[
    str | None, typer.Option("--fallback", help="What answers a miss: jit or fast.", rich_help_panel=_STRATEGY)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any other field of the strategy or the engine, JSON value; dots nest. Repeatable.",
        rich_help_panel=_STRATEGY,
    ),
]
Import = Annotated[
    list[str] | None,
    typer.Option("--import", help="A module to import first: it registers your strategies.", rich_help_panel=_STRATEGY),
]

WarmUp = Annotated[
    bool,
    typer.Option(
        "--warm-up/--no-warm-up", help="On a GPU: capture graphs and compile kernels before.", rich_help_panel=_ENGINE
    ),
]

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
TraceFile = Annotated[Path | None, typer.Option("--trace", help="Save every round here (JSON lines; .gz compresses).")]
