"""What flags mean: one pure function from flags to a `BenchConfig`, and the combinations that mean nothing."""

from __future__ import annotations

from typing import Any

from ssd_lab.bench.config import BUNDLED, EXAMPLE, BenchConfig, is_prompt_file
from ssd_lab.bench.flags import Flags
from ssd_lab.bench.inflated import inflated_draft, inflated_target
from ssd_lab.bench.names import DEFAULT_SIZE, SIZES, Family
from ssd_lab.common.parsing import parse_strategy
from ssd_lab.errors import ConfigError
from ssd_lab.models.names import EAGLE_HEADS, LLAMA_33
from ssd_lab.settings import Settings
from ssd_lab.strategies import registry

SETS = {  # flags that choose the prompts; --all in the reference's order
    "humaneval": ("humaneval",), "alpaca": ("alpaca",), "c4": ("c4",), "ultrafeedback": ("ultrafeedback",),
    "all": ("humaneval", "alpaca", "gsm8k", "ultrafeedback"), "example": (EXAMPLE,),
}  # fmt: skip
NUM_EXAMPLES = 8
_ASYNC_FLAGS = ("f", "fl", "flh", "flm", "backup", "x")


def to_config(flags: Flags, settings: Settings | None = None) -> BenchConfig:
    """The run that these flags ask for; the same for the same arguments, whatever the machine.

    settings: name the models where no flag does, and the head of Llama 70B. Raises ConfigError that says what would be
    right for combinations that mean nothing.
    """
    own_target, own_draft, own_head = (
        (None, None, None)
        if settings is None
        else (settings.target_model, settings.draft_model, settings.eagle3_specforge)
    )
    strategy, knobs = _strategy(flags)
    target = _target(flags, own_target)
    given = {name: getattr(flags, name) for name in flags.model_fields_set if name in BenchConfig.model_fields}
    meant = {
        "strategy": strategy,
        "strategy_fields": knobs,
        "target": target,
        "draft": _draft(flags, strategy, target, own_draft, own_head),
        "datasets": _datasets(flags),
        "input_len": None if flags.given("prompt_file") and not flags.given("input_len") else flags.input_len,
        "ignore_eos": flags.ignore_eos
        and ("ignore_eos" in flags.model_fields_set or not flags.given("prompt_file")),  # as `run` and `tune` do
        "num_sequences": NUM_EXAMPLES if flags.example and not flags.given("num_sequences") else flags.num_sequences,
        "device": flags.device or _device(flags, target == own_target),
    }
    return BenchConfig(**{**given, **meant})


def _device(flags: Flags, from_settings: bool) -> str:
    """Published sizes run on a GPU if nothing else is said: on a CPU they take minutes a token, and all memory."""
    return "auto" if from_settings or flags.given("target", "models", "placement") else "cuda"


def _strategy(flags: Flags) -> tuple[str, dict[str, Any]]:
    """Its name and its fields."""
    if flags.strategy:
        return _named_strategy(flags)
    if flags.async_ and not (flags.spec or flags.eagle):
        raise ConfigError("--async says how to speculate and --spec is missing: give --spec --async")
    if not (flags.spec or flags.eagle):
        _refuse(flags.given("k", *_ASYNC_FLAGS), "speculation", "add --spec, or --spec --async")
        return "autoregressive", {}
    if not flags.async_:
        _refuse(flags.given(*_ASYNC_FLAGS), "asynchronous speculation", "add --async")
        return ("eagle3", {"mode": "sync", "k": flags.k}) if flags.eagle else ("sync_chain", {"k": flags.k})
    knobs = _knobs(flags, {"k", "f", "backup"})
    return ("eagle3", {"mode": "async", **knobs}) if flags.eagle else ("async_tree", knobs)


def _refuse(given: list[str], what: str, advice: str) -> None:
    if given:
        raise ConfigError(f"{', '.join(given)} belong{'s' * (len(given) == 1)} to {what}, which is off: {advice}")


def _named_strategy(flags: Flags) -> tuple[str, dict[str, Any]]:
    """--strategy with its own fields and those that flags give it; the strategy itself says which it has."""
    others = flags.given("spec", "async_", "eagle")
    if others:
        raise ConfigError(
            f"--strategy {flags.strategy!r} and {', '.join(others)} both choose a strategy: give one of them"
        )
    own = parse_strategy(flags.strategy)
    name = str(own.pop("strategy"))
    knobs = _knobs(flags, set())
    twice = sorted(knobs.keys() & own.keys())
    if twice:
        raise ConfigError(f"{', '.join(twice)} was given twice, in --strategy and as a flag")
    return name, {**knobs, **own}


def _knobs(flags: Flags, always: set[str]) -> dict[str, Any]:
    """Fields of a strategy for the flags that were given. always: flags that count with their defaults too."""
    knobs: dict[str, Any] = {}
    if "k" in always or flags.given("k"):
        knobs["k"] = flags.k
    if "f" in always or flags.given("f", "fl", "flh", "flm"):
        knobs |= _fan_out(flags)
    if "backup" in always or flags.given("backup"):
        knobs["fallback"] = flags.backup
    if flags.x is not None:
        knobs["saguaro_c"] = flags.x
    return knobs


def _fan_out(flags: Flags) -> dict[str, Any]:
    """Fields of the fan-out: one number, or lists for rounds after a hit and after a miss."""
    lists = flags.given("fl", "flh", "flm")
    if not lists:
        return {"f": flags.f}
    if flags.fl is not None and len(lists) > 1:
        raise ConfigError(f"--fl is the list of all rounds and {', '.join(lists[1:])} came too: give --flh and --flm")
    if flags.fl is not None and flags.given("f"):
        raise ConfigError("--f and --fl both say the fan-out: give one of them")
    hit = flags.fl or flags.flh or [flags.f] * (flags.k + 1)
    for name, counts in (("--fl" if flags.fl else "--flh", hit), ("--flm", flags.flm or hit)):
        if len(counts) != flags.k + 1:
            raise ConfigError(
                f"{name} {' '.join(map(str, counts))} has {len(counts)} numbers; --k {flags.k} needs {flags.k + 1}, "
                f"one for each accepted length 0..{flags.k}"
            )
    if flags.flm is not None and sum(flags.flm) != sum(hit):
        whose = "--flh" if flags.flh else f"--f {flags.f} at {flags.k + 1} lengths"
        raise ConfigError(
            f"--flm sums to {sum(flags.flm)} and {whose} to {sum(hit)}: the draft decodes the same number of branches "
            "after a hit and after a miss, so make the sums equal"
        )
    explicit: dict[str, Any] = {"kind": "explicit", "hit": hit}
    return {"fan_out": explicit if flags.flm is None else {**explicit, "miss": flags.flm}}


def _family(flags: Flags) -> Family:
    if flags.llama and flags.qwen:
        raise ConfigError("--llama and --qwen name two families: give one of them")
    return "qwen" if flags.qwen else "llama"


def _target(flags: Flags, from_settings: str | None) -> str:
    family = _family(flags)
    if flags.geometry is not None:
        _one_target([f"--geometry {flags.geometry}", *flags.given("target", "models")])
        named = flags.given("size") or flags.qwen
        return inflated_target(flags.geometry, _of_size(flags, family) if named else None)
    if flags.models is not None:
        _one_target([f"--models {flags.models}", *flags.given("target", "draft_model")])
        return BUNDLED
    if flags.target:
        _one_target(["--target", *flags.given("size", "llama", "qwen")])
        return flags.target
    if from_settings is not None and not flags.given("size", "llama", "qwen", "eagle"):
        return from_settings
    name = _of_size(flags, family)
    return LLAMA_33 if flags.eagle and name == SIZES["llama"]["70"] else name


def _of_size(flags: Flags, family: Family) -> str:
    size = flags.size if flags.given("size") else DEFAULT_SIZE["target"][family]
    if size not in SIZES[family]:
        other = "--qwen" if family == "llama" else "--llama"
        raise ConfigError(f"--size {size} is none of {family}'s ({', '.join(SIZES[family])}): did you mean {other}?")
    return SIZES[family][size]


def _one_target(flags: list[str]) -> None:
    if len(flags) > 1:
        raise ConfigError(f"{' and '.join(flags)} name different models: give one of them")


def _draft(flags: Flags, strategy: str, target: str, from_settings: str | None, eagle_head: str | None) -> str | None:
    """The draft's name, or None where no model drafts, or where only its owner could name one."""
    if flags.draft is not None and flags.draft_model is not None:
        raise ConfigError("--draft and --draft-model both name the draft: give one of them")
    if flags.geometry is not None and flags.draft_model is None and strategy != "eagle3":
        return inflated_draft(flags.geometry, flags.draft) if _drafts(flags, strategy) else None
    named = flags.draft_model or (None if flags.draft is None else _draft_of_size(flags.draft, _family(flags)))
    if strategy == "eagle3":
        return named or (None if target == BUNDLED else _eagle_head(target, eagle_head))
    if not _drafts(flags, strategy):
        return None
    if flags.models is not None:
        return BUNDLED
    if named is not None or from_settings is not None:
        return named or from_settings
    family = _family(flags)
    return None if target not in SIZES[family].values() else SIZES[family][DEFAULT_SIZE["draft"][family]]


def _drafts(flags: Flags, strategy: str) -> bool:
    """Is there anything that a draft model does? An unknown strategy is refused later, in words of its own."""
    known = registry.all().get(strategy)
    return bool(flags.peers) or known is None or known.needs_draft


def _draft_of_size(text: str, family: Family) -> str:
    if text in SIZES[family]:
        return SIZES[family][text]
    if text.replace(".", "", 1).isdigit():
        raise ConfigError(
            f"--draft {text} is no size of {family}'s: give {', '.join(SIZES[family])}, or a folder or hub id"
        )
    return text


def _eagle_head(target: str, from_settings: str | None) -> str:
    if target == LLAMA_33 and from_settings is not None:
        return from_settings
    if target not in EAGLE_HEADS:
        raise ConfigError(
            f"no EAGLE3 head is known for {target}: there are heads for --llama --size 8, --llama --size 70 and --qwen "
            "--size 32; for another target, name the head with --draft-model"
        )
    return EAGLE_HEADS[target]


def _datasets(flags: Flags) -> tuple[str, ...]:
    chosen = flags.given("datasets", "prompt_file", *SETS, "random")
    if len(chosen) > 1:
        raise ConfigError(
            f"{', '.join(chosen)} each choose the prompts: give one, or several sets as --dataset gsm8k humaneval"
        )
    if flags.prompt_file is not None:
        if not is_prompt_file(flags.prompt_file):
            raise ConfigError(f"--prompt-file {flags.prompt_file}: a benchmark reads a .txt or .jsonl file")
        return (flags.prompt_file,)
    return next((names for field, names in SETS.items() if getattr(flags, field)), flags.datasets)
