"""`ssd-lab bench serve`: tables, records, the run table, and input that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_openai import FakeServer, Reply
from typer.testing import CliRunner, Result

from ssd_lab.cli.main import app


def invoke(*arguments: str, table: Path) -> Result:
    with_table = [*arguments, "--table", str(table)] if arguments[0] != "report" else [*arguments]
    return CliRunner().invoke(app, ["bench", *with_table], env={"COLUMNS": "200"})


def test_two_servers_side_by_side_are_kept_compared_and_reported(tmp_path: Path):
    table = tmp_path / "runs.sqlite"
    with FakeServer() as ours, FakeServer(lambda number, body: Reply(words=("other",))) as peer:
        done = invoke(
            "serve", "--url", ours.url, "--peer-url", f"{peer.url}#fake", "--num-requests", "6", "-c", "2",
            "--repeats", "2", "--limit-latency-ms", "9000", "--name", "ours", table=table,
        )  # fmt: skip
        port = peer.url.rpartition(":")[2]
    assert done.exit_code == 0, done.output
    for said in ("1: fake at", "2: fake at", "first token p50", "goodput", "between pieces p50", "2 clients"):
        assert said in done.stdout
    assert "first token p90" not in done.stdout, "of six requests that is the slowest one"
    compared = invoke("compare", "ours", "2", "--json", table=table)
    assert compared.exit_code == 0, compared.output
    document = json.loads(compared.stdout)
    assert (document["same_texts"], document["num_texts"]) == (0, 6)
    assert "requests_per_second" in {figure["figure"] for figure in document["figures"]}
    listed = invoke("list", "--json", table=table)
    assert [row["name"] for row in json.loads(listed.stdout)] == ["ours", f"fake at 127.0.0.1:{port}"]
    report = CliRunner().invoke(
        app, ["bench", "report", "ours", "2", "--table", str(table), "--out", str(tmp_path / "report")]
    )
    assert report.exit_code == 0, report.output
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "between pieces p50" in text
    assert "total tokens/s" in text.partition("## Figures")[0]


def test_the_record_has_command_versions_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", "secret-key")
    with FakeServer() as server:
        done = invoke(
            "serve", "--url", server.url, "--api-key-env", "MY_KEY", "--rate", "50", "--num-requests", "4", "--json",
            table=tmp_path / "t.sqlite",
        )  # fmt: skip
        assert server.seen[0].headers["authorization"] == "Bearer secret-key"
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)
    assert record["environment"]["versions"]["torch"]
    assert record["environment"]["run"]["command"].startswith("ssd-lab")
    assert record["config"]["load"]["arrivals"] == "poisson"
    assert len(record["datasets"]["example"]["repeats"][0]["requests"]) == 4
    assert "secret-key" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], "--url"),
        (["serve", "--url", "http://127.0.0.1:9", "--serve", "x"], "not both"),
        (["serve", "--url", "http://127.0.0.1:9", "-c", "1", "--rate", "2"], "a closed loop"),
        (["serve", "--url", "http://127.0.0.1:9", "--arrivals", "often"], "arrivals"),
        (["serve", "--url", "127.0.0.1:9"], "http://host:port"),
        (["serve", "--url", "http://127.0.0.1:9"], "is it running"),
        (["serve", "--url", "http://127.0.0.1:9", "--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (["serve", "--serve", "'"], "--serve"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], said: str, tmp_path: Path):
    done = invoke(*arguments, table=tmp_path / "t.sqlite")
    assert done.exit_code == 2, done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]


def test_a_server_that_fails_every_request_is_a_failure(tmp_path: Path):
    with FakeServer(lambda number, body: Reply(status=500)) as server:
        done = invoke("serve", "--url", server.url, "--num-requests", "3", "--warmup", "0", table=tmp_path / "t.sqlite")
    assert done.exit_code == 2
    assert "3 of 3 requests failed: http 500 (3)" in done.stdout
