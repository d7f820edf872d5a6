"""Shared by all tests: a tiny pair of random models that behave like a family, made in a moment, no download."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import quick_imports
import torch
from forked_children import Forks
from held_engines import Hold
from machine_threads import THREADS

from ssd_lab.links import child_process

HIDDEN, HEADS, KV_HEADS, MLP, LAYERS, CONTEXT = 64, 4, 2, 128, 2, 512
STARTED_S = time.monotonic()
# folders with the longest tests: none of them is to come last
FIRST = ("browser", "notebooks", "docs", "kernels", "serve", "sweep")
quick_imports.leave_out()
MOST_CASES = 1  # of one test that are `full`, in `make test-all`, unless its mark says more
LONG_S = 10  # seconds from which a test belongs in `make test-all`, with a smaller one of its kind in `make test`


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options must be known before the folders below are read."""
    parser.addoption("--screenshots", default=None, help="folder in which the browser tests leave pictures")
    parser.addoption("--site", default=None, help="the site that `make docs` has made; without it, one is built")
    parser.addoption(
        "--begin-within", type=float, help="seconds, after which no test begins: the rest is skipped, aloud"
    )


@pytest.hookimpl(tryfirst=True)  # before its fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A machine that is slow, or busy, ends in time all the same, and says what it did not run."""
    limit_s = item.config.getoption("--begin-within")
    if limit_s is not None and time.monotonic() - STARTED_S > limit_s:
        pytest.skip(f"NOT RUN: the {limit_s:g} s of --begin-within are over; `make test-all` runs it")


def pytest_configure(config: pytest.Config) -> None:
    """Workers that run side by side take one thread each, and so do the processes that they start. Ctrl-C works."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for what it starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(THREADS)
        torch.set_num_threads(THREADS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test's cases `quick(ids)` leaves these to `make test`; the others are `full`. `grid(one_of=n)` leaves every
    n-th to `make test`, and of those that are `full` every n-th to `make test-all`; `grid(full=n)` only thins these,
    but none that `quick(full=ids)` names. Where more than MOST_CASES would be left (`grid(most=n)`), so many are taken.
    Long ones come first, so that at the end no process waits for another's.
    """
    cases = Counter[Any]()
    left = defaultdict[Any, list[pytest.Item]](list)  # of each test, to choose from
    for item in items:
        quick, grid = item.get_closest_marker("quick"), item.get_closest_marker("grid")
        if quick is not None and item.callspec.id not in quick.args:
            item.add_marker("full")
        is_full = item.get_closest_marker("full") is not None
        named = (*quick.args, *quick.kwargs.get("full", ())) if quick is not None else ()
        if named and item.callspec.id in named:
            continue
        given = {} if grid is None else grid.kwargs
        every = given.get("full" if is_full else "one_of") or given.get("one_of", 1)
        case = (item.path, getattr(item, "originalname", item.name), is_full)
        if cases[case] % every:
            item.add_marker("extended")
        elif is_full and item.get_closest_marker("extended") is None:
            left[(*case, given.get("most", MOST_CASES))].append(item)
        cases[case] += 1
    for (_, name, _, most), some in left.items():
        first = zlib.crc32(name.encode())  # not the same strategies of every test
        chosen = {(first + place * len(some) // most) % len(some) for place in range(most)}
        for place, item in enumerate(some):
            if place not in chosen:
                item.add_marker("extended")
    items.sort(key=lambda item: not {*item.path.parts} & {*FIRST})


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """What it makes stays: the collector would look through all of it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(autouse=True)
def machine_threads() -> None:
    """Every test begins with the same number, whatever those before it have set."""
    torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True, scope="session")
def forked_children() -> Iterator[None]:
    """Draft processes and ranks are forked from one process that has imported torch; not where there are GPUs, which a
    forked process may not be able to use.
    """
    if sys.platform != "linux" or torch.cuda.is_available():
        yield
        return
    forks = Forks()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(child_process, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": forks.start}))
        yield
    forks.close()


@pytest.fixture(autouse=True)
def fresh_interpreters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests with the mark `fresh_interpreter` start them as they are started outside of tests."""
    if request.node.get_closest_marker("fresh_interpreter"):
        monkeypatch.setattr(child_process, "subprocess", subprocess)


@pytest.fixture(autouse=True, scope="module")
def young_heap() -> None:
    """What is alive before a file of tests is no garbage of its tests: the collector looks past it. A worker's heap
    grows with every library that some test imports, and a look at all of it takes a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    """For tests of what is still under way: a quick engine would have ended it."""
    made = Hold(monkeypatch)
    yield made
    made.release()


@pytest.fixture(autouse=True)
def event_loop_of_its_own(request: pytest.FixtureRequest) -> Iterator[None]:
    """A browser that an earlier test of this process opened keeps its event loop running in this thread: a test that
    does not drive it begins without one.
    """
    running = None if "browser" in request.path.parts else asyncio._get_running_loop()
    if running is not None:
        asyncio._set_running_loop(None)
    yield
    if running is not None:
        asyncio._set_running_loop(running)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names tests that make `make test` long: a mark `full`, or less to do, belongs to each."""
    long = [
        report
        for report in terminalreporter.stats.get("passed", [])
        if report.when == "call" and report.duration > LONG_S and "full" not in report.keywords
    ]
    if long:
        terminalreporter.section(f"longer than {LONG_S} s and not marked `full`")
        for report in sorted(long, key=lambda each: -each.duration):
            terminalreporter.line(f"{report.duration:6.1f} s  {report.nodeid}")


@dataclass(frozen=True)
class TinyPair:
    """Folders of a target and of a draft that is the target with noise, so that many of its guesses are right."""

    target: str
    draft: str

    @property
    def options(self) -> list[str]:
        """For the command line."""
        return ["--target", self.target, "--draft", self.draft, "--dtype", "float32"]


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> TinyPair:
    """A byte-level Llama with 259 token ids, and its draft."""
    folder = tmp_path_factory.mktemp("tiny")
    vocab_size = write_tokenizer(folder / "target")
    write_tokenizer(folder / "draft")
    tensors = random_llama(vocab_size, seed=1)
    noise = random_llama(vocab_size, seed=2)
    write_checkpoint(folder / "target", tensors, vocab_size)
    write_checkpoint(folder / "draft", {n: t + 0.1 * noise[n] * (t.ndim > 1) for n, t in tensors.items()}, vocab_size)
    return TinyPair(str(folder / "target"), str(folder / "draft"))


def random_llama(vocab_size: int, seed: int) -> dict[str, torch.Tensor]:
    """Weights named as in a Hugging Face checkpoint, scaled so that the logits have a spread of a few units."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * gain / columns**0.5

    head_dim = HIDDEN // HEADS
    tensors = {
        "model.embed_tokens.weight": matrix(vocab_size, HIDDEN, gain=HIDDEN**0.5),
        "model.norm.weight": torch.ones(HIDDEN),
        "lm_head.weight": matrix(vocab_size, HIDDEN, gain=2.5),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        tensors |= {
            at + "input_layernorm.weight": torch.ones(HIDDEN),
            at + "post_attention_layernorm.weight": torch.ones(HIDDEN),
            at + "self_attn.q_proj.weight": matrix(HEADS * head_dim, HIDDEN, gain=2.0),
            at + "self_attn.k_proj.weight": matrix(KV_HEADS * head_dim, HIDDEN, gain=2.0),
            at + "self_attn.v_proj.weight": matrix(KV_HEADS * head_dim, HIDDEN),
            at + "self_attn.o_proj.weight": matrix(HIDDEN, HEADS * head_dim),
            at + "mlp.gate_proj.weight": matrix(MLP, HIDDEN),
            at + "mlp.up_proj.weight": matrix(MLP, HIDDEN),
            at + "mlp.down_proj.weight": matrix(HIDDEN, MLP),
        }
    return tensors


def write_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], vocab_size: int) -> None:
    """config.json and model.safetensors."""
    from safetensors.torch import save_file

    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "vocab_size": vocab_size, "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "hidden_act": "silu",
        "bos_token_id": None, "eos_token_id": vocab_size - 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")


def write_tokenizer(folder: Path) -> int:
    """A tokenizer.json of the 256 bytes and three special tokens; returns the number of ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: index for index, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<|user|>", "<|assistant|>", "<|end|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tokenizer.get_vocab_size()
