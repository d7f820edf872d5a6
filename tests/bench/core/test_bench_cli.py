"""The rest of `ssd-lab bench`: files of runs, sweeps, the run table, comparisons, reports, and what watching costs."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import Result

from ssd_lab.bench.config import BenchConfig, cell_key
from ssd_lab.bench.contenders import PEERS
from ssd_lab.bench.report import markdown, report_sections, write_report
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.store import RunTable
from ssd_lab.bench.texts import estimate_text
from ssd_lab.cli.bench_tables import result_tables, side_by_side
from ssd_lab.errors import ConfigError

Invoke = Callable[..., Result]


@pytest.fixture
def tiny_flags(tiny_pair: Any) -> list[str]:
    lengths = "--numseqs 2 --input_len 16 --output_len 5 --warmup 0 --threads 1 --dtype float32 --draft-link inline"
    return ["--target", tiny_pair.target, "--draft-model", tiny_pair.draft, *lengths.split()]


@pytest.fixture
def table(results: tuple[BenchResult, BenchResult], tmp_path: Path) -> RunTable:
    """A table with both results."""
    table = RunTable(tmp_path / "results" / "bench.sqlite")
    table.add(results[0], name="plain", group="g")
    table.add(results[1], name="tree")
    return table


def test_results_come_back_by_id_name_and_cell(table: RunTable, results: tuple[BenchResult, BenchResult]):
    plain, tree = results
    assert table.get(1) == table.get("1") == table.get("plain") == plain
    assert table.by_cell(cell_key(tree.config)) == tree
    assert table.by_cell("unknown") is None
    assert [(row.run_id, row.name, row.group) for row in table.list()] == [(1, "plain", "g"), (2, "tree", None)]
    assert [row.run_id for row in table.list("g")] == [1]
    table.add(tree, name="plain")
    assert table.get("plain") == tree  # the latest of that name
    with pytest.raises(ConfigError, match=r"no run 'gone'; the latest are plain, tree"):
        table.get("gone")


def test_a_table_says_what_it_is(tmp_path: Path, table: RunTable):
    with sqlite3.connect(table.path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    (tmp_path / "text.sqlite").write_text("no table at all, but long enough to be looked at twice" * 40)
    with pytest.raises(ConfigError, match="cannot be used as a run table"):
        RunTable(tmp_path / "text.sqlite")
    with sqlite3.connect(table.path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="version 99"):
        RunTable(table.path)


def test_list_and_compare(bench: Invoke, table: RunTable):
    assert [row["name"] for row in json.loads(bench("list", "--json").stdout)] == ["plain", "tree"]
    compared = json.loads(bench("compare", "plain", "tree", "--json").stdout)
    assert (compared["same_texts"], compared["num_texts"]) == (2, 2)
    assert compared["changes"]["strategy"] == ["autoregressive", "async_tree"]
    speed = next(each for each in compared["figures"] if each["figure"] == "decode_tokens_per_second")
    assert speed["ratio"]["low"] < speed["ratio"]["mean"] < speed["ratio"]["high"]
    assert speed["verdict"] in ("better", "worse", "no difference")
    shown = bench("compare", "1", "2").stdout
    assert "same text: 2 of 2 prompts" in shown and "tokens/round" in shown
    assert "run a benchmark first" in bench("list", "--table", "none.sqlite").stderr
    assert not Path("none.sqlite").exists()


def test_comparing_a_run_with_itself_finds_no_difference(results: tuple[BenchResult, BenchResult]):
    from ssd_lab.bench.comparison import compare_runs

    same = compare_runs(results[1], results[1])
    assert same.changes == {}
    verdicts = {figure.figure: figure.verdict for figure in same.figures if figure.ratio is not None}
    assert verdicts.pop("round_s") is None, "a longer round may have more tokens"
    assert {*verdicts.values()} == {"no difference"}
    assert all(figure.ratio.mean == pytest.approx(1) for figure in same.figures if figure.ratio is not None)


def test_a_report_has_the_same_tables_in_markdown_and_html(bench: Invoke, table: RunTable):
    pytest.importorskip("plotly")
    written = bench("report", "plain", "tree", "--out", "report", "--title", "Plain & tree")
    assert written.exit_code == 0, written.output
    text, page = (Path("report", name).read_text(encoding="utf-8") for name in ("report.md", "report.html"))
    name = "decode_tokens_per_second"
    speed = estimate_text(name, table.get("tree").datasets["gsm8k"].estimates[name]).split()[0]
    assert "| tree | gsm8k | " in text and speed in text
    assert "hardware.cpu" in text and "git.commit" in text and "Student's t" in text
    assert "<h1>Plain &amp; tree</h1>" in page and speed in page
    assert "<script" not in page and 'src="http' not in page  # its figures are inside
    assert page.count("<svg") == text.count(".svg)") == 6
    assert "Acceptance by position" in page and "latency of each request" in page


def test_a_figure_has_a_bar_with_its_interval_for_each_run_that_tells_it(results: tuple[BenchResult, BenchResult]):
    from xml.etree import ElementTree

    from ssd_lab.bench.report_figures import bars_svg

    runs = [("plain", results[0]), ("tree <2>", results[1])]
    drawn = bars_svg("decode_tokens_per_second", runs)
    assert drawn is not None and len(drawn) < 4000
    titles = [title.text for title in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}title")]
    speeds = [result.datasets["gsm8k"].estimates["decode_tokens_per_second"] for result in results]
    assert titles == [
        f"{name}, gsm8k: {estimate_text('decode_tokens_per_second', speed)}"
        for (name, _), speed in zip(runs, speeds, strict=True)
    ]
    boxes = [box for box in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}rect") if len(box)]
    heights = [float(box.attrib["height"]) for box in boxes]
    assert heights[0] / heights[1] == pytest.approx(speeds[0].mean / speeds[1].mean, rel=0.05)
    hits = bars_svg("cache_hit_rate", runs)
    assert hits is not None and "tree &lt;2&gt;" in hits and "plain" not in hits
    assert bars_svg("cache_hit_rate", runs[:1]) is None


def test_the_page_can_be_left_out(table: RunTable, tmp_path: Path):
    runs = [("plain", table.get("plain"))]
    assert [file.name for file in write_report(runs, tmp_path / "report", html=False)] == [
        "report.md", "decode_tokens_per_second.svg", "tokens_per_round.svg", "latency.svg",
    ]  # fmt: skip


def test_notes_and_inexact_results_are_in_the_report(results: tuple[BenchResult, BenchResult]):
    from dataclasses import replace

    text = markdown("t", report_sections([("a", replace(results[0], exact=False)), ("b", results[1])]))
    assert "NOT EXACT" in text and "prompts were cut to 24 tokens (a, b)" in text


def test_a_file_of_runs_shares_the_flags_of_the_command_line(bench: Invoke, tiny_flags: list[str]):
    Path("runs.yaml").write_text(
        "- {name: plain}\n- {name: chain, spec: true, k: 2, temp: 0.5}\n- {name: tree, strategy: async_tree f=1 k=2}\n"
    )
    for turns in ([], ["--in-turns"]):
        result = bench("--runs", "runs.yaml", "--json", *turns, *tiny_flags)
        assert result.exit_code == 0, result.output
        runs = json.loads(result.stdout)
        assert [(run["name"], run["config"]["strategy"]) for run in runs] == [
            ("plain", "autoregressive"), ("chain", "sync_chain"), ("tree", "async_tree"),
        ]  # fmt: skip
        assert [run["config"]["temperature"] for run in runs] == [0.0, 0.5, 0.0]
        assert {run["config"]["output_len"] for run in runs} == {5}
    assert len(RunTable("results/bench.sqlite").list()) == 6


def test_several_runs_are_told_by_name_and_end_side_by_side(results: tuple[BenchResult, BenchResult]):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(result_tables(results[1], "run 2 of t", "mine"))
    console.print(side_by_side([("plain", results[0]), ("mine", results[1])]))
    shown = console.export_text()
    assert shown.startswith("mine: async_tree") and "p99" not in shown, "of two requests there is no p99"
    assert "over the first" in shown and "ssd-lab bench compare plain mine" in shown
    last = next(line for line in shown.splitlines() if line.strip().startswith("mine ") and "x" in line)
    assert "[" in last, "the ratio has its interval"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {sepc: true}", "run 1: unknown flag 'sepc': did you mean 'spec'"),
        ("- {}\n- {k: many}", "run 2: --k many"),
        ("- {table: x}", "--table is for the whole command"),
        ("k: 4", "no list of runs"),
        ("- [", "cannot be read"),
        ("- 4", "4 is no run"),
        ("- {gpus: 2}", "2 GPUs were asked for"),
    ],
)
def test_a_wrong_file_of_runs_is_refused_with_its_place(bench: Invoke, tiny_flags: list[str], text: str, words: str):
    Path("runs.yaml").write_text(text)
    result = bench("--runs", "runs.yaml", *tiny_flags)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not Path("results").exists()


def test_a_sweep_as_the_reference_writes_it(bench: Invoke, tiny_flags: list[str]):
    sweep = '[{"temp": 0.0, "name": "cold"}, {"temp": 0.7, "b": 2}]'
    result = bench("--sweep", sweep, "--name", "s", "--group", "g", "--json", *tiny_flags)
    assert result.exit_code == 0, result.output
    runs = json.loads(result.stdout)
    assert [(run["config"]["temperature"], run["config"]["batch"]) for run in runs] == [(0.0, 1), (0.7, 2)]
    rows = RunTable("results/bench.sqlite").list("g")
    assert [row.name for row in rows] == ["cold", "s_1"]
    assert bench("--sweep", sweep, "--json", *tiny_flags).exit_code == 0
    assert len(RunTable("results/bench.sqlite").list()) == 2  # finished cells are not measured again


def test_a_grids_cells_are_told_apart_in_the_list(bench: Invoke, tiny_flags: list[str]):
    assert bench("--sweep", '{"temp": [0.0, 0.7]}', "--name", "s", *tiny_flags).exit_code == 0
    rows = RunTable("results/bench.sqlite").list()
    assert [row.name for row in rows] == ["s_0", "s_1"]
    assert ["temperature=0.7" in row.config.others for row in rows] == [False, True]
    listed = bench("list").stdout
    assert "s_1" in listed and listed.startswith("all: ") and listed.count("sync_chain") <= 1, "said once for all"
    again = bench("--sweep", '{"temp": [0.0, 0.7]}', "--name", "s", *tiny_flags)
    assert again.stdout.count("measured before (20") == 2 and "s_1: " in again.stdout


def test_an_interrupted_sweep_says_what_is_kept_and_goes_on(
    bench: Invoke, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssd_lab.cli.bench_run.run_sweep", interrupted)
    ended = bench("--sweep", '{"temp": [0.0, 0.7]}', *tiny_flags)
    assert ended.exit_code == 130
    assert "0 of 2 cells are in" in ended.stderr and "the same command goes on where it was" in ended.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("--runs a.yaml --sweep [{}]", "give one of them"),
        ("--in-turns", "give --runs"),
        ("--workers ray", "give --sweep"),
        ("--sweep [{}] --verbose", "leave out --sweep"),
        ("--runs none.yaml", "cannot be read"),
    ],
)
def test_plans_that_mean_nothing_are_refused(bench: Invoke, command: str, words: str):
    result = bench(*command.split())
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_verbose_tells_rounds_and_debug_keeps_them(bench: Invoke, tiny_flags: list[str]):
    from ssd_lab import load_trace

    result = bench("--spec", "--k", "2", "--verbose", "--debug", "--table", "kept/a.sqlite", *tiny_flags)
    assert result.exit_code == 0, result.output
    assert "request 2, round 0: drafted |" in result.stderr or "request 0, round 0: drafted |" in result.stderr
    (file,) = Path("kept/a-traces").glob("*.jsonl.gz")
    trace = load_trace(file)
    assert [len(request.prompt_ids) for request in trace.requests] == [16, 16]
    assert sum(row.num_emitted for each in trace.rounds for row in each.sequences) == 10


def test_a_strategy_of_ones_own_is_measured_by_name(bench: Invoke, tiny_flags: list[str]):
    Path("my_bench_strategy.py").write_text(
        "from typing import ClassVar\n"
        "from ssd_lab.strategies import Context, SequenceStrategy, register_strategy\n"
        "@register_strategy\n"
        "class Echo(SequenceStrategy):\n"
        "    strategy_name: ClassVar[str] = 'echo_for_bench'\n"
        "    lookahead: ClassVar[int] = 1\n"
        "    def draft(self, context: Context) -> list[int]:\n"
        "        return [context.token_ids[-1]]\n"
    )
    own = ["--import", "my_bench_strategy", "-s", "echo_for_bench"]
    result = bench(*own, "--json", *tiny_flags)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["config"]["strategy"] == "echo_for_bench"


@pytest.mark.full
def test_peers_and_answers_stand_beside_the_speed(bench: Invoke, tiny_flags: list[str]):
    beside = ["--peer", "transformers_prompt_lookup", "--quality", "--name", "r", "--input_len", "300"]
    result = bench(*tiny_flags, *beside)  # whole prompts: a cut one cannot be scored
    assert result.exit_code == 0, result.output
    assert "transformers_prompt_lookup" in result.stdout and "answers right" in result.stdout
    found = RunTable("results/bench.sqlite").get("r")
    assert found.peers["gsm8k"]["transformers_prompt_lookup"]["num_prompts"] == 2
    assert found.quality["gsm8k"]["num_scored"] == 2
    text = markdown("t", report_sections([("r", found)]))
    assert "| r | gsm8k | transformers_prompt_lookup |" in text and "| r | gsm8k | exact_match | " in text


@pytest.mark.full
def test_prompts_of_ones_own_beside_another_program_with_three_strategies(bench: Invoke, tiny_flags: list[str]):
    Path("mine.txt").write_text("the cat sat on the mat\n\none two three one two\n")
    Path("runs.yaml").write_text(
        "- {name: plain}\n- {name: chain, spec: true, k: 3}\n- {name: tree, strategy: async_tree}\n"
    )
    own = [
        "--prompt-file",
        "mine.txt",
        "--input_len",
        "64",
        "--numseqs",
        "9",
        "--peer",
        "transformers",
        "--runs",
        "runs.yaml",
    ]
    result = bench(*tiny_flags, *own, "--json")
    assert result.exit_code == 0, result.output
    runs = json.loads(result.stdout)
    assert [run["config"]["strategy"] for run in runs] == ["autoregressive", "sync_chain", "async_tree"]
    for run in runs:
        assert {peer["num_same"] for peer in run["peers"]["mine.txt"].values()} == {2}
        assert list(run["peers"]["mine.txt"]) == list(PEERS)
    table = RunTable("results/bench.sqlite")
    assert table.get("plain").digests == table.get("chain").digests == table.get("tree").digests
    refused = bench(*tiny_flags, "--prompt-file", "mine.txt", "--prompt_offset", "2")
    assert refused.exit_code == 2
    assert "mine.txt has 2 prompts" in refused.stderr
    Path("bad.jsonl").write_text('{"prompt": "one"}\n[1]\n')
    for file, said in (("gone.txt", "cannot be read from gone.txt"), ("bad.jsonl", "bad.jsonl, line 2")):
        refused = bench(*tiny_flags, "--prompt-file", file)
        assert refused.exit_code == 2 and said in refused.stderr


def test_help_lists_flags_and_verbs(bench: Invoke):
    shown = bench("--help").stdout
    assert "--block_sz" in shown and "compare A B" in shown


def test_config_rejects_what_no_run_can_have():
    for fields in ({"datasets": ()}, {"batch": 0}, {"temperature": -1}, {"unknown": 1}, {"repeats": 0}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            BenchConfig(**fields)
