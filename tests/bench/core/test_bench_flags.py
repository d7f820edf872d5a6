"""Every flag of `ssd-lab bench`: what it changes in the run that is measured, and which combinations are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.flags import FIELDS, Flags, first_name, make_flags, names_of, parse_flags
from ssd_lab.bench.meaning import to_config
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.settings import Settings

LLAMA_70, LLAMA_8 = "meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"
LLAMA_33 = "meta-llama/Llama-3.3-70B-Instruct"
LLAMA_3, LLAMA_1 = "meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.2-1B-Instruct"
ASYNC = {"k": 6, "f": 3, "fallback": "jit"}
NO_FLAGS = {
    "strategy": "autoregressive", "strategy_fields": {}, "target": LLAMA_70, "draft": None, "device": "cuda",
    "datasets": ("gsm8k",), "num_sequences": 128, "prompt_offset": 0, "random": False, "chat": False,
    "input_len": 128, "output_len": 512, "ignore_eos": True, "batch": 1, "temperature": 0.0, "draft_temperature": None,
    "max_model_len": 8192, "block_size": 256, "num_gpus": 1, "eager": False, "max_steps": None,
}  # fmt: skip

# the flag under test, the command line, and every field that differs from the run without flags
TABLE: list[tuple[str, str, dict[str, Any]]] = [
    ("--size", "--size 8", {"target": LLAMA_8}),
    ("--size", "--size 3", {"target": LLAMA_3}),
    ("--llama", "--llama --size 1", {"target": LLAMA_1}),
    ("--qwen", "--qwen", {"target": "Qwen/Qwen3-32B"}),
    *(("--qwen", f"--qwen --size {size}", {"target": f"Qwen/Qwen3-{size}B"}) for size in ("0.6", "1.7", "4", "14")),
    ("--spec", "--spec", {"strategy": "sync_chain", "strategy_fields": {"k": 6}, "draft": LLAMA_1}),
    ("--draft", "--spec --draft 3", {"strategy": "sync_chain", "strategy_fields": {"k": 6}, "draft": LLAMA_3}),
    (
        "--draft", "--qwen --spec --draft 0.6",
        {"strategy": "sync_chain", "strategy_fields": {"k": 6}, "target": "Qwen/Qwen3-32B", "draft": "Qwen/Qwen3-0.6B"},
    ),
    ("--draft", "--spec --draft ./mine", {"strategy": "sync_chain", "strategy_fields": {"k": 6}, "draft": "./mine"}),
    ("--k", "--spec --k 4", {"strategy": "sync_chain", "strategy_fields": {"k": 4}, "draft": LLAMA_1}),
    ("--async", "--spec --async", {"strategy": "async_tree", "strategy_fields": ASYNC, "draft": LLAMA_1}),
    ("--f", "--spec --async --f 5", {"strategy": "async_tree", "strategy_fields": ASYNC | {"f": 5}, "draft": LLAMA_1}),
    (
        "--fl", "--spec --async --k 2 --fl 1 3 4",
        {
            "strategy": "async_tree", "draft": LLAMA_1,
            "strategy_fields": {"k": 2, "fallback": "jit", "fan_out": {"kind": "explicit", "hit": [1, 3, 4]}},
        },
    ),
    (
        "--flh", "--spec --async --k 2 --flh 1 3 4",
        {
            "strategy": "async_tree", "draft": LLAMA_1,
            "strategy_fields": {"k": 2, "fallback": "jit", "fan_out": {"kind": "explicit", "hit": [1, 3, 4]}},
        },
    ),
    (
        "--flh", "--spec --async --k 2 --flh 1 3 4 --flm 4 3 1",
        {
            "strategy": "async_tree", "draft": LLAMA_1,
            "strategy_fields": {
                "k": 2, "fallback": "jit", "fan_out": {"kind": "explicit", "hit": [1, 3, 4], "miss": [4, 3, 1]},
            },
        },
    ),
    (
        "--flm", "--spec --async --k 2 --flm 4 3 2",
        {
            "strategy": "async_tree", "draft": LLAMA_1,
            "strategy_fields": {
                "k": 2, "fallback": "jit", "fan_out": {"kind": "explicit", "hit": [3, 3, 3], "miss": [4, 3, 2]},
            },
        },
    ),
    (
        "--backup", "--spec --async --backup fast",
        {"strategy": "async_tree", "strategy_fields": ASYNC | {"fallback": "fast"}, "draft": LLAMA_1},
    ),
    (
        "--x", "--spec --async --x 0.5",
        {"strategy": "async_tree", "strategy_fields": ASYNC | {"saguaro_c": 0.5}, "draft": LLAMA_1},
    ),
    (
        "--eagle", "--eagle --async --size 8",
        {
            "strategy": "eagle3", "strategy_fields": {"mode": "async", **ASYNC}, "target": LLAMA_8,
            "draft": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B",
        },
    ),
    (
        "--eagle", "--eagle",
        {
            "strategy": "eagle3", "strategy_fields": {"mode": "sync", "k": 6}, "target": LLAMA_33,
            "draft": "lmsys/SGLang-EAGLE3-Llama-3.3-70B-Instruct-SpecForge",
        },
    ),
    (
        "--eagle", "--eagle --qwen --size 32",
        {
            "strategy": "eagle3", "strategy_fields": {"mode": "sync", "k": 6}, "target": "Qwen/Qwen3-32B",
            "draft": "RedHatAI/Qwen3-32B-speculator.eagle3",
        },
    ),
    ("--draft", "--draft 1", {}),  # nothing drafts, so no draft is loaded
    ("--gpus", "--gpus 4", {"num_gpus": 4}),
    ("--placement", "--placement target=cpu,cpu", {"placement": "target=cpu,cpu", "device": "auto"}),
    ("--eager", "--eager", {"eager": True}),
    ("--b", "--b 16", {"batch": 16}),
    ("--block_sz", "--block_sz 32", {"block_size": 32}),
    ("--max_model_len", "--max_model_len 4096", {"max_model_len": 4096}),
    ("--input_len", "--input_len 64", {"input_len": 64}),
    ("--output_len", "--output_len 256", {"output_len": 256}),
    ("--numseqs", "--numseqs 4", {"num_sequences": 4}),
    ("--temp", "--temp 0.7", {"temperature": 0.7}),
    ("--dtemp", "--dtemp 0.5", {"draft_temperature": 0.5}),
    ("--example", "--example", {"datasets": ("example",), "num_sequences": 8}),
    ("--example", "--example --numseqs 3", {"datasets": ("example",), "num_sequences": 3}),
    ("--humaneval", "--humaneval", {"datasets": ("humaneval",)}),
    ("--alpaca", "--alpaca", {"datasets": ("alpaca",)}),
    ("--c4", "--c4", {"datasets": ("c4",)}),
    ("--ultrafeedback", "--ultrafeedback", {"datasets": ("ultrafeedback",)}),
    ("--random", "--random", {"random": True}),
    ("--prompt_offset", "--prompt_offset 100", {"prompt_offset": 100}),
    ("--all", "--all", {"datasets": ("humaneval", "alpaca", "gsm8k", "ultrafeedback")}),
    ("--chat_template", "--chat_template", {"chat": True}),
    ("--max-steps", "--max-steps 10", {"max_steps": 10}),
    ("--dataset", "--dataset mt-bench gsm8k", {"datasets": ("mt_bench", "gsm8k")}),
    ("--target", "--target ./mine", {"target": "./mine", "device": "auto"}),
    (
        "--draft-model", "--target a/b --draft-model c/d --spec",
        {"target": "a/b", "draft": "c/d", "strategy": "sync_chain", "strategy_fields": {"k": 6}, "device": "auto"},
    ),
    ("--models", "--size 70 --models bundled", {"target": "bundled", "device": "auto"}),
    (
        "--models", "--models bundled --spec",
        {
            "target": "bundled", "draft": "bundled", "device": "auto", "strategy": "sync_chain",
            "strategy_fields": {"k": 6},
        },
    ),
    ("--geometry", "--geometry llama-8b", {"target": "inflated:llama-8b:bundled-target"}),
    *(
        ("--geometry", f"--geometry {target} --spec{draft}", {
            "target": f"inflated:{target}:bundled-target", "draft": f"inflated:{found}:bundled-draft",
            "strategy": "sync_chain", "strategy_fields": {"k": 6},
        })
        for target, draft, found in (
            ("llama-70b", "", "llama-1b"), ("llama-70b", " --draft 3", "llama-3b"), ("qwen3-32b", "", "qwen3-0.6b"),
            ("llama-8b", " --size 8 --draft llama-1b", "llama-1b"),
            ("qwen3-32b", " --qwen --draft 0.6", "qwen3-0.6b"),
        )
    ),
    ("--geometry", "--geometry llama-8b --spec --draft-model ./mine", {
        "target": "inflated:llama-8b:bundled-target", "draft": "./mine", "strategy": "sync_chain",
        "strategy_fields": {"k": 6},
    }),
    ("--strategy", "-s prompt_lookup --models bundled", {
        "strategy": "prompt_lookup", "target": "bundled", "device": "auto",
    }),
    ("--strategy", "--strategy async_tree --k 4 --backup fast --fl 1 1 1 1 1", {
        "strategy": "async_tree", "draft": LLAMA_1,
        "strategy_fields": {"k": 4, "fan_out": {"kind": "explicit", "hit": [1] * 5}, "fallback": "fast"},
    }),
    ("--device", "--device cpu", {"device": "cpu"}),
    ("--dtype", "--dtype float32", {"dtype": "float32"}),
    ("--threads", "--threads 2", {"threads": 2}),
    ("--draft-link", "--draft-link inline", {"draft_link": "inline"}),
    ("--seed", "--seed 7", {"seed": 7}),
    ("--repeats", "--repeats 5", {"repeats": 5}),
    ("--precision", "--precision 0.05", {"precision": 0.05}),
    ("--max-repeats", "--max-repeats 9", {"max_repeats": 9}),
    ("--warmup", "--warmup 2", {"warmup": 2}),
    ("--no-warm-up", "--no-warm-up", {"warm_up": False}),
    ("--no-ignore-eos", "--no-ignore-eos", {"ignore_eos": False}),
    ("--prefix-reuse", "--prefix-reuse", {"prefix_reuse": True}),
    ("--no-bitwise", "--no-bitwise", {"bitwise": False}),
    ("--no-record", "--no-record", {"record": False}),
    ("--dataset", "--dataset mine.txt", {"datasets": ("mine.txt",)}),
    ("--prompt-file", "--prompt-file mine.txt", {"datasets": ("mine.txt",), "input_len": None, "ignore_eos": False}),
    ("--prompt-file", "--prompt-file mine.txt --ignore-eos", {"datasets": ("mine.txt",), "input_len": None}),
    ("--prompt-file", "--prompt-file m.txt --input_len 9", {"datasets": ("m.txt",), "input_len": 9, "ignore_eos": 0}),
    ("--peer", "--peer transformers", {"peers": ("transformers",), "draft": LLAMA_1}),
    ("--quality", "--quality", {"quality": True}),
    ("--unguarded", "--unguarded", {"unguarded": True}),
]  # fmt: skip

# flags that say what happens beside the measuring: they change a field of Flags, and nothing of what is measured
BESIDE: list[tuple[str, str, Any]] = [
    ("--verbose", "--verbose", True),
    ("--debug", "--debug", True),
    ("--wandb", "--wandb", True),
    ("--group", "--group g1", "g1"),
    ("--name", "--name n1", "n1"),
    ("--sweep", '--sweep [{"temp":0.7}]', '[{"temp":0.7}]'),
    ("--runs", "--runs a.yaml", Path("a.yaml")),
    ("--in-turns", "--in-turns", True),
    ("--workers", "--workers ray", "ray"),
    ("--table", "--table a.sqlite", Path("a.sqlite")),
    ("--json", "--json", True),
    ("--import", "--import mine", ["mine"]),
]


def fields(command: str) -> dict[str, Any]:
    return to_config(parse_flags(command.split())).model_dump()


def test_without_flags_the_run_is_the_references():
    found = fields("")
    assert {name: found[name] for name in NO_FLAGS} == NO_FLAGS


@pytest.mark.parametrize(("flag", "command", "expected"), TABLE, ids=[command for _, command, _ in TABLE])
def test_a_flag_changes_these_fields_and_no_others(flag: str, command: str, expected: dict[str, Any]):
    assert flag in command or any(name in command.split() for name in names_of(field_of(flag)))
    assert fields(command) == fields("") | expected


@pytest.mark.parametrize(("flag", "command", "expected"), BESIDE, ids=[flag for flag, _, _ in BESIDE])
def test_a_flag_beside_the_measuring_changes_nothing_measured(flag: str, command: str, expected: Any):
    flags = parse_flags(command.split())
    assert getattr(flags, field_of(flag)) == expected
    assert to_config(flags) == to_config(Flags())


def test_the_tables_cover_every_flag():
    tested = {flag for flag, _, _ in TABLE} | {flag for flag, _, _ in BESIDE}
    assert tested == {first_name(field) for field in FIELDS}
    assert {*FIELDS} == {*Flags.model_fields} - {"strategy_fields", "load"}  # `bench serve` has flags of its own


@pytest.mark.parametrize("field", FIELDS)
def test_all_names_of_a_flag_mean_the_same(field: str):
    plain = Flags.model_fields[field].annotation is bool
    example = {"size": "8", "backup": "fast", "models": "bundled", "dtype": "float32", "draft_link": "inline",
               "workers": "ray", "precision": "0.5", "datasets": "gsm8k"}.get(field, "7")  # fmt: skip
    parsed = [parse_flags([name] if plain else [name, example]) for name in names_of(field)]
    assert all(flags == parsed[0] and flags.model_fields_set == {field} for flags in parsed)
    assert make_flags({names_of(field)[-1].strip("-"): True if plain else value_of(field, example)}) == parsed[0]


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("--async", "--spec --async"),
        ("--prompt-file a.txt --dataset c4", "--dataset, --prompt-file each choose the prompts"),
        ("--prompt-file a.csv", "a .txt or .jsonl file"),
        ("--k 4", "add --spec"),
        ("--f 3", "add --spec"),
        ("--spec --f 3", "add --async"),
        ("--spec --backup fast", "add --async"),
        ("--spec --x 0.5", "add --async"),
        ("--spec --async --k 6 --fl 1 2 3", "--k 6 needs 7"),
        ("--spec --async --k 2 --flh 1 2 3 --flm 1 2", "--flm 1 2 has 2 numbers; --k 2 needs 3"),
        ("--spec --async --k 2 --flh 1 2 3 --flm 1 2 4", "sums to 7 and --flh to 6"),
        ("--spec --async --k 2 --flm 1 2 4", "--f 3 at 3 lengths to 9"),
        ("--spec --async --k 2 --fl 1 2 3 --flm 1 2 3", "give --flh and --flm"),
        ("--spec --async --k 2 --fl 1 2 3 --f 2", "give one of them"),
        ("--llama --qwen", "give one of them"),
        ("--size 32", "did you mean --qwen"),
        ("--qwen --size 70", "did you mean --llama"),
        ("--qwen --spec --draft 3", "0.6, 1.7, 4, 8, 14, 32"),
        ("--spec --draft 1 --draft-model a/b", "give one of them"),
        ("--eagle --size 3", "--llama --size 8, --llama --size 70 and --qwen --size 32"),
        ("--target a/b --size 8", "give one of them"),
        ("--models bundled --target a/b", "give one of them"),
        ("--geometry llama-8b --models bundled", "give one of them"),
        (
            "--geometry llama-8b --size 70",
            "Llama-3.1-8B-Instruct, and the size beside it that of meta-llama/Llama-3.1-70B",
        ),
        ("--geometry llama-8b --qwen", "leave one of them out"),
        ("--geometry llama-9b", "there are llama-1b"),
        ("--geometry smollm2-135m", "do not fit into smollm2-135m"),
        ("--geometry llama-8b --spec --draft qwen3-0.6b", "a draft of the same family, such as llama-1b"),
        ("--humaneval --alpaca", "--dataset gsm8k humaneval"),
        ("--random --all", "give one"),
        ("--dataset gsm8k gsm8k", "name each once"),
        ("--strategy async_tree --spec", "give one of them"),
        ("--strategy async_tree --precision 0.05 --max-repeats 1", "no room"),
        ("--size 9", "'8'"),
        ("--backup slow", "'jit' or 'fast'"),
        ("--numseqs 0", "greater than or equal to 1"),
        ("--numseq 4", "did you mean '--numseqs'"),
        ("--fl", "--fl"),
    ],
)
def test_a_wrong_combination_is_told_what_would_be_right(command: str, advice: str):
    with pytest.raises((ConfigError, ModelLoadError)) as caught:
        to_config(parse_flags(command.split()))
    assert advice in str(caught.value)


def test_a_strategys_own_fields_stand_beside_its_name():
    config = to_config(parse_flags(["--models", "bundled", "-s", "async_tree k=3 f=2"]))
    assert config == BenchConfig(
        strategy="async_tree", strategy_fields={"k": 3, "f": 2}, target="bundled", draft="bundled"
    )
    with pytest.raises(ConfigError, match="k was given twice"):
        to_config(parse_flags(["-s", "async_tree k=3", "--k", "4"]))


def test_a_key_of_a_file_switches_on_or_off_as_it_says():
    assert make_flags({"no_warm_up": True}) == make_flags({"warm_up": False}) == parse_flags(["--no-warm-up"])
    assert make_flags({"no_warm_up": False}).warm_up is True


def test_settings_name_models_where_no_flag_does():
    named = to_config(parse_flags(["--spec"]), Settings(target_model="me/big", draft_model="me/small"))
    assert (named.target, named.draft, named.device) == ("me/big", "me/small", "auto")
    others = Settings(target_model="a/b", draft_model="c/d")
    flagged = to_config(parse_flags(["--spec", "--size", "8", "--draft", "3"]), others)
    assert (flagged.target, flagged.draft) == (LLAMA_8, LLAMA_3)
    head = to_config(parse_flags(["--eagle"]), Settings(eagle3_specforge="./head")).draft
    assert head == "./head"


def field_of(flag: str) -> str:
    return next(field for field in FIELDS if flag in names_of(field))


def value_of(field: str, text: str) -> Any:
    kind = str(Flags.model_fields[field].annotation)
    return [text] if "list" in kind or "tuple" in kind else text
