"""The draft's process: what it imports, what it says when it fails, and whom it belongs to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from worker_rounds import asked, round_of

from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.drafting.worker_setup import WorkerSetup
from ssd_lab.errors import DraftWorkerError, ForkedProcessError, ModelLoadError
from ssd_lab.links import draft_process
from ssd_lab.links.child_process import ChildProcess
from ssd_lab.links.link import InlineLink
from ssd_lab.links.messages import PrefillMessage
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.links.thread_link import ThreadLink
from ssd_lab.models.loader import load_model
from ssd_lab.models.opened import OpenedModel
from ssd_lab.rounds.prompt_lines import PromptPart

ROUND = round_of(5, 50, None)
OUTSIDE = 99_999  # no token of the tiny pair has this id
ASYNC: dict[str, Any] = {"strategy": "async_tree", "k": 2, "f": 1, "dtype": "float32", "progress": False, "threads": 1}
PARAMS = SamplingParams(max_tokens=12, ignore_eos=True)


def setup_for(tiny_pair: Any, **changed: Any) -> WorkerSetup:
    fields = {"model": tiny_pair.draft, "plan": DraftPlan(k=2), **changed}
    return WorkerSetup(
        dtype="float32", device="cpu", num_blocks=20, block_size=8, max_batch=4, threads=1, longest_table=4, **fields
    )


@pytest.fixture
def link(tiny_pair: Any):
    opened = ProcessLink(setup_for(tiny_pair), start_timeout_s=60)
    yield opened
    opened.close()


# --- what it says when it fails ---------------------------------------------------------------------------------------


def test_a_child_that_failed_in_a_message_without_a_reply_is_quoted_by_the_next_call(link: ProcessLink) -> None:
    link.post(PrefillMessage([PromptPart([OUTSIDE], 0, [1])]))
    link._child._process.wait(timeout=30)  # it has said why, and is gone
    with pytest.raises(DraftWorkerError, match=r"failed: IndexError: .+") as failure:
        asked(link, ROUND).answer(30)
    assert "exit code" not in str(failure.value)
    assert "draft_worker.py" in failure.value.__cause__.__notes__[0]  # where in the child


def test_a_child_that_failed_is_quoted_by_the_next_posted_message_too(link: ProcessLink) -> None:
    link.post(PrefillMessage([PromptPart([OUTSIDE], 0, [1])]))
    link._child._process.wait(timeout=30)
    with pytest.raises(DraftWorkerError, match="failed: IndexError"):
        link.post(PrefillMessage([PromptPart([1], 0, [1])]))


def test_a_run_whose_draft_fails_in_the_prompt_says_why_and_goes_on(tiny_pair: Any, monkeypatch: Any) -> None:
    from ssd_lab.drafting import link_proposer

    with LLM(tiny_pair.target, tiny_pair.draft, **ASYNC) as llm:
        expected = llm.generate("Hello there, you", PARAMS)[0].token_ids
        original, wrong = link_proposer.PrefillMessage, [PromptPart([OUTSIDE], 0, [1])]
        monkeypatch.setattr(link_proposer, "PrefillMessage", lambda parts: original(wrong))
        with pytest.warns(RuntimeWarning, match=r"failed: IndexError: .+autoregressively"):
            result = llm.run("Hello there, you two", PARAMS)
        assert "IndexError" in result.trace.meta["degraded"]
        assert llm.generate("Hello there, you", PARAMS)[0].token_ids == expected


@pytest.mark.parametrize("name", ["SIGKILL", pytest.param("SIGSEGV", marks=pytest.mark.full)])
def test_a_child_that_was_killed_says_by_which_signal(link: ProcessLink, name: str) -> None:
    os.kill(link.process_id, getattr(signal, name))
    with pytest.raises(DraftWorkerError, match=rf"gone \(killed by {name}"):
        asked(link, ROUND).answer(30)


class BreaksAtStart:
    """A plan whose worker cannot be made: pickled by name, so it must be importable where it is unpickled."""

    scratch_positions = 0
    most_tokens = 2

    def __init__(self, how: str) -> None:
        self.how = how

    def make_worker(self, drafter: Any) -> Any:
        if self.how == "memory":
            torch.empty(1 << 60)
        if self.how == "raise":
            raise ValueError("no such thing")
        os.write(2, b"the last thing it wrote\n")
        os._exit(3)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        pytest.param("memory", "failed: RuntimeError: .*can't allocate memory", marks=pytest.mark.full),
        ("raise", "failed: ValueError: no such thing"),
        ("exit", r"gone \(exit code 3\nthe last thing it wrote"),
    ],
)
def test_a_child_that_dies_at_the_start_says_why(tiny_pair: Any, how: str, said: str) -> None:
    with pytest.raises(DraftWorkerError, match=said):
        ProcessLink(setup_for(tiny_pair, plan=BreaksAtStart(how)), start_timeout_s=60)


@pytest.mark.fresh_interpreter
def test_a_child_whose_python_does_not_start_is_quoted(tiny_pair: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(DraftWorkerError, match=r"(?s)exit code 1.*encodings"):
        ProcessLink(setup_for(tiny_pair), start_timeout_s=60)


@pytest.mark.fresh_interpreter
@pytest.mark.full
def test_an_import_that_fails_in_the_child_is_quoted(tiny_pair: Any, tmp_path: Path, monkeypatch: Any) -> None:
    module = tmp_path / "only_here.py"
    module.write_text("class Plan:\n    scratch_positions, most_tokens = 0, 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = __import__("only_here").Plan()
    module.unlink()
    with pytest.raises(DraftWorkerError, match="ModuleNotFoundError: No module named 'only_here'"):
        ProcessLink(setup_for(tiny_pair, plan=plan), start_timeout_s=60)


@pytest.mark.full
@pytest.mark.fresh_interpreter
def test_what_a_child_writes_while_it_starts_is_shown(tiny_pair: Any, tmp_path: Path, monkeypatch: Any, capsys: Any):
    (tmp_path / "talks.py").write_text(
        "import sys\nfrom ssd_lab.drafting.draft_worker import DraftPlan\nsys.stderr.write('by the way\\n')\n"
        "def plan():\n    return DraftPlan(k=2)\nclass Plan:\n    most_tokens = 2\n"
        "    def __reduce__(self):\n        return plan, ()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = __import__("talks").Plan()
    capsys.readouterr()
    ProcessLink(setup_for(tiny_pair, plan=plan), start_timeout_s=60).close()
    assert "by the way" in capsys.readouterr().err


def test_weights_that_are_damaged_are_the_callers_error(tiny_pair: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in Path(tiny_pair.draft).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    for link in ("process", "thread", "inline"):
        with pytest.raises(ModelLoadError, match=r"model\.norm\.weight"):
            LLM(tiny_pair.target, str(tmp_path), **ASYNC, draft_link=link)


# --- the draft's weights are where it works ---------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.fresh_interpreter
def test_a_draft_in_a_process_of_its_own_is_read_there_alone(tiny_pair: Any) -> None:
    with LLM(tiny_pair.target, tiny_pair.draft, **ASYNC) as llm:
        text = llm.generate("Hello", PARAMS)[0].token_ids
        assert isinstance(llm.draft, OpenedModel) and not llm.draft.is_read
        loaded = load_model(tiny_pair.draft, dtype="float32")
        assert (llm.draft.config, llm.draft.dtype, llm.draft.source) == (loaded.config, loaded.dtype, loaded.source)
        assert llm.draft.tokenizer.fingerprint == loaded.tokenizer.fingerprint
        assert torch.equal(llm.draft.decoder.embedding, loaded.decoder.embedding)  # for whoever asks all the same
        assert llm.draft.is_read
    with LLM(tiny_pair.target, llm.draft, **ASYNC, draft_link="inline") as again:
        assert again.generate("Hello", PARAMS)[0].token_ids == text


@pytest.mark.parametrize("options", [{"draft_link": "thread"}, {"draft_link": "inline"}, {"strategy": "sync_chain"}])
def test_a_draft_that_works_here_is_read_here(tiny_pair: Any, options: dict[str, Any]) -> None:
    fields = {**ASYNC, **options}
    if fields["strategy"] == "sync_chain":
        del fields["f"]
    with LLM(tiny_pair.target, tiny_pair.draft, **fields) as llm:
        assert not isinstance(llm.draft, OpenedModel)


def test_the_memory_plan_counts_what_the_drafts_process_will_take(tiny_pair: Any) -> None:
    from ssd_lab.assembly.planning import MemoryPlanner
    from ssd_lab.config import EngineConfig
    from ssd_lab.strategies import registry

    class Reader:
        def free_bytes(self) -> int:
            return 10_000_000

    options = {"dtype": "float32", "device": "cpu", "bitwise": True, "kernels": "auto", "progress": False}
    opened = OpenedModel(tiny_pair.draft, **options)
    target = load_model(tiny_pair.target, dtype="float32")
    strategy, config = registry.config("async_tree", {"k": 2, "f": 1}), EngineConfig(dtype="float32", device="cpu")

    planner = MemoryPlanner(target, opened, strategy, config, torch.device("cpu"), Reader())
    before = planner.once_loaded()
    tables = opened.config.max_positions * opened.config.head_dim * 2 * 4
    assert before.free_bytes == 10_000_000 - planner.lasting["draft weights"] - tables
    assert opened.decoder is opened.decoder
    after = planner.once_loaded()  # now the reader sees them itself
    assert after.free_bytes == 10_000_000 and before.num_blocks < after.num_blocks


# --- what it imports --------------------------------------------------------------------------------------------------

SHADOWS = ("select", "logging", "socket", "queue", "random", "json", "types", "signal", "numpy", "torch", "pickle")


@pytest.mark.full
def test_files_in_the_current_folder_are_no_modules_of_the_draft_process(tiny_pair: Any, tmp_path: Path) -> None:
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a file of the user')\n")
    program = Path(sys.executable).with_name("ssd-lab")
    command = [str(program), "run", "Hello", "--max-tokens", "4", "--json", "-s", "async_tree", *tiny_pair.options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "degraded" not in json.loads(done.stdout).get("meta", {}) and "autoregressively" not in done.stderr


SCRIPT = """
import sys
import {module}
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.drafting.worker_setup import WorkerSetup
sys.path.insert(0, "")  # as in a notebook
import my_plans
setup = WorkerSetup({draft!r}, "float32", "cpu", 20, 8, 4, 1, my_plans.plan(), longest_table=4)
ProcessLink(setup, start_timeout_s=60).close()
print("started")
"""
PLANS = """
from ssd_lab.drafting.draft_worker import DraftPlan
class Plan:
    most_tokens = 2
    def __reduce__(self):
        return made, ()
def made():
    return DraftPlan(k=2)
def plan():
    return Plan()
"""


@pytest.mark.full
@pytest.mark.parametrize("module", ["select", "queue"])
def test_a_users_module_is_found_behind_the_standard_library(tiny_pair: Any, tmp_path: Path, module: str) -> None:
    (tmp_path / "my_plans.py").write_text(PLANS)
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('a file of the user')\n")
    script = SCRIPT.format(draft=tiny_pair.draft, module=module)
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "started\n", done.stderr


def test_places_are_searched_in_the_parents_order_behind_the_standard_library() -> None:
    standard = os.path.dirname(os.__file__)
    own = ["/from/PYTHONPATH", standard, f"{standard}/lib-dynload", f"{standard}/site-packages"]
    parents = ["/checkout", f"{standard}/site-packages", "/notebooks", standard]
    order = draft_process.in_order(own, parents)
    assert order == [
        standard, f"{standard}/lib-dynload", "/checkout", f"{standard}/site-packages", "/notebooks", "/from/PYTHONPATH",
    ]  # fmt: skip


# --- whom it belongs to -----------------------------------------------------------------------------------------------


def in_a_fork(work: Any) -> str:
    """What the work raises in a forked child, in words."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads
        child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_a_forked_child_gets_an_error_and_its_parent_keeps_its_draft(tiny_pair: Any, kind: str) -> None:
    setup = setup_for(tiny_pair)
    link: Any
    if kind == "process":
        link = ProcessLink(setup, start_timeout_s=60)
    elif kind == "thread":
        link = ThreadLink(setup.make_worker, threads=1, start_timeout_s=60)
    else:
        link = InlineLink(setup.make_worker())
    try:
        expected = asked(link, ROUND).answer(30).tokens.tolist()
        said = in_a_fork(lambda: asked(link, ROUND).answer(30))
        assert said.startswith(ForkedProcessError.__name__) and "spawn" in said and str(os.getpid()) in said
        assert in_a_fork(link.close) == "nothing"
        assert asked(link, ROUND).answer(30).tokens.tolist() == expected
    finally:
        link.close()


def test_closing_ends_the_draft_although_a_forked_child_holds_the_connection(tiny_pair: Any) -> None:
    link = ProcessLink(setup_for(tiny_pair), start_timeout_s=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        link.close()
        assert link._child._process.returncode == 0  # it was not killed
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.full
def test_the_draft_ends_with_a_parent_that_was_killed_and_left_a_fork(tiny_pair: Any) -> None:
    script = f"""
import os, sys, time, warnings
warnings.simplefilter("ignore")
from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.drafting.worker_setup import WorkerSetup
setup = WorkerSetup({tiny_pair.draft!r}, "float32", "cpu", 20, 8, 4, 1, DraftPlan(k=2), longest_table=4)
link = ProcessLink(setup, start_timeout_s=60)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(link.process_id, child, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    draft, fork = map(int, parent.stdout.readline().split())
    parent.stdout.close()
    parent.kill()
    parent.wait()
    try:
        deadline_s = time.monotonic() + 30
        while is_running(draft) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert not is_running(draft)
    finally:
        os.kill(fork, signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.fresh_interpreter
def test_no_descriptor_stays_open_when_a_child_cannot_be_started(monkeypatch: Any) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        ChildProcess(threads=1)
    assert sorted(os.listdir("/proc/self/fd")) == before
