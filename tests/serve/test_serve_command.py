"""`ssd-lab serve` as a process: it says where it is, answers, and SIGTERM ends it when running answers are finished."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

import ssd_lab
from ssd_lab.cli.main import app
from ssd_lab.serve.served import load_served


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ssd_lab.cli", "serve", "--port", "0", *arguments]
    folder = Path(ssd_lab.__file__).parents[1]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)


@pytest.fixture
def models(tiny_pair):
    return [*tiny_pair.options, "--served-name", "tiny"]


def test_it_serves_until_sigterm_and_lets_answers_finish(models, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("secret-key\n", encoding="utf-8")
    with start(*models, "-s", "sync_chain k=3", "-s", "autoregressive", "--api-key-file", str(keys)) as process:
        try:
            line = next(line for line in process.stderr if line.startswith("serving "))
            assert line.startswith("serving tiny, tiny:sync_chain, tiny:autoregressive at http://127.0.0.1:")
            url = line.rsplit(" ", 1)[1].strip()
            log: list[str] = []
            reading = threading.Thread(target=lambda: log.extend(process.stderr))
            reading.start()
            body = {"model": "tiny", "prompt": "a", "max_tokens": 300, "ignore_eos": True, "stream": True}
            headers = {"Authorization": "Bearer secret-key"}
            with httpx.stream("POST", f"{url}/v1/completions", json=body, headers=headers, timeout=60) as stream:
                lines = stream.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                rest = [each for each in lines if each]
            assert rest[-1] == "data: [DONE]" and '"finish_reason":"length"' in rest[-2]
            assert process.wait(60) == 0
            reading.join(10)
        finally:
            process.kill()
    assert '"path": "/v1/completions", "status": 200' in "".join(log) and "secret-key" not in "".join(log)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "no-such-host.invalid"], "cannot listen on no-such-host.invalid"),
        (["--max-queue", "-1"], "max_queue=-1"),
        (["--api-key-file", "none"], "API keys none cannot be read"),
        (["-s", "async_treee"], "did you mean 'async_tree'"),
        (["-s", "sync_chain", "-s", "sync_chain"], "is served twice"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(models, arguments, said):
    result = CliRunner().invoke(app, ["serve", "--port", "0", *models, *arguments])
    assert result.exit_code == 2 and said in " ".join(result.stderr.split())


def test_strategies_have_names_of_their_own(tiny_pair):
    chosen = [{"strategy": "sync_chain", "k": 2}, "sync_chain", {"strategy": "autoregressive"}]
    with load_served(tiny_pair.target, tiny_pair.draft, chosen, served_name="tiny", dtype="float32") as models:
        names = [card["id"] for card in models.cards()]
        assert names == ["tiny", "tiny:sync_chain(k=2)", "tiny:sync_chain", "tiny:autoregressive"]
        assert len({model.llm.target.decoder for model in models}) == 1  # loaded once
