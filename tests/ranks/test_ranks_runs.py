"""A target over several processes: its texts, and what a caller sees of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end_cases import PROMPTS
from power import found_wrong
from testing_models import random_tensors, tiny_config

from ssd_lab import LLM, SamplingParams
from ssd_lab.check import Extent, check
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.models.loader import from_tensors, load_model

pytestmark = pytest.mark.grid(full=5)  # each case starts processes of its own

OPTIONS: dict[str, Any] = {"progress": False, "threads": 1, "dtype": "float32"}
GREEDY = SamplingParams(max_tokens=24, ignore_eos=True)
SAMPLED = SamplingParams(max_tokens=16, ignore_eos=True, temperature=1.0, seed=3)
STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {"strategy": "autoregressive"},
    "sync_chain": {"strategy": "sync_chain", "k": 3},
    "async_tree": {"strategy": "async_tree", "k": 3, "f": 2},
    "sync_tree": {"strategy": "sync_tree", "tree": {"kind": "fixed", "widths": [3, 2, 1]}},
    "eagle3": {"strategy": "eagle3", "k": 3},
    "eagle3 tree": {"strategy": "eagle3", "tree": {"kind": "dynamic", "top_k": 3, "depth": 3, "num_nodes": 8}},
    "eagle3 async": {"strategy": "eagle3", "mode": "async", "k": 3, "f": 2},
    "prompt_lookup": {"strategy": "prompt_lookup", "k": 3},
    "cascade": {"strategy": "cascade", "second": {"strategy": "sync_chain", "k": 3}},
}


def placement(ranks: int) -> dict[str, list[str]]:
    return {"target": ["cpu"] * ranks}


def leftovers() -> set[str]:
    """Folders in which ranks meet."""
    memory = Path("/dev/shm")
    return {each.name for each in memory.glob(f"ssd_lab-ranks-{os.getpid()}-*")} if memory.is_dir() else set()


def texts_of(ranks: int, batch: int, params: SamplingParams, **fields: Any) -> list[list[int]]:
    prompts = (PROMPTS * 3)[:batch]
    with LLM(**fields, **OPTIONS, max_batch=batch, placement=placement(ranks)) as llm:
        return [output.token_ids for output in llm.generate(prompts, params)]


@pytest.fixture(scope="module")
def two_ranks() -> Iterator[LLM]:
    """The bundled pair, the target over two processes."""
    with LLM(strategy="async_tree", k=3, f=2, **OPTIONS, placement=placement(2)) as llm:
        yield llm


@pytest.fixture(scope="module")
def by_itself() -> list[list[int]]:
    """Greedy texts of one process."""
    with LLM(strategy="autoregressive", **OPTIONS) as llm:
        return [output.token_ids for output in llm.generate(PROMPTS, GREEDY)]


def test_two_ranks_write_the_text_of_one_process(two_ranks: LLM, by_itself: list[list[int]]) -> None:
    """Their sums are made in another order, so a text may part where two tokens are nearly as likely; such a place
    comes once in thousands in float32.
    """
    found = [output.token_ids for output in two_ranks.generate(PROMPTS, GREEDY)]
    same = [ours == theirs for ours, theirs in zip(found, by_itself, strict=True)]
    assert sum(same) >= len(same) - 1
    alone = [two_ranks.generate(prompt, GREEDY)[0].token_ids for prompt in PROMPTS[:2]]
    assert alone == found[:2]


def test_each_rank_has_its_share_and_the_plan_says_so(two_ranks: LLM) -> None:
    plan = two_ranks.memory_plan.as_dict()
    (name,), (parts,) = plan["others"].keys(), plan["others"].values()
    assert name == "rank 1, cpu"
    whole = load_model(two_ranks.target.source or "", dtype="float32").config
    assert parts["target weights"] < 0.7 * whole.num_parameters * 4
    assert parts["KV blocks"] == two_ranks.kv_bytes
    assert "rank 1, cpu: target weights 0.04 GB" in str(two_ranks.memory_plan)


@pytest.mark.full
def test_several_callers_share_the_ranks(two_ranks: LLM) -> None:
    found: dict[int, list[int]] = {}

    def call(number: int) -> None:
        found[number] = two_ranks.generate(PROMPTS[number], GREEDY)[0].token_ids

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[number] for number in range(3)] == [
        output.token_ids for output in two_ranks.generate(PROMPTS[:3], GREEDY)
    ]


def test_log_probabilities_and_streams_come_as_from_one_process(two_ranks: LLM) -> None:
    params = SamplingParams(max_tokens=6, logprobs=3, ignore_eos=True)
    (output,) = two_ranks.generate("Hello there", params)
    assert output.logprobs is not None and len(output.logprobs) == 6
    assert "".join(chunk.text for chunk in two_ranks.stream("Hello there", params)) == output.text


@pytest.mark.full
@pytest.mark.grid(most=3)
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "autoregressive"])
def test_every_strategy_writes_the_autoregressive_text_of_its_placement(name: str, ranks: int) -> None:
    expected = texts_of(ranks, 16, GREEDY, **STRATEGIES["autoregressive"])
    with LLM(**STRATEGIES[name], **OPTIONS, max_batch=16, prefix_reuse=False, placement=placement(ranks)) as llm:
        for batch in (1, 4, 16):
            outputs = llm.generate((PROMPTS * 3)[:batch], GREEDY)
            assert [output.token_ids for output in outputs] == expected[:batch]


@pytest.mark.full
def test_a_tree_writes_the_autoregressive_text_of_its_placement(two_ranks: LLM) -> None:
    """What it moves in the cache, every rank moves."""
    expected = [output.token_ids for output in two_ranks.generate(PROMPTS[:4], GREEDY)]
    assert texts_of(2, 4, GREEDY, **STRATEGIES["eagle3 tree"]) == expected


@pytest.mark.full
@pytest.mark.grid(most=2)
@pytest.mark.parametrize("name", ["eagle3", "eagle3 async"])
def test_a_head_that_borrows_the_targets_output_has_all_of_it(name: str) -> None:
    """A rank's own part names only some tokens; the bundled head has no output of its own."""
    runs = []
    for ranks in (1, 2):
        place = placement(ranks) if ranks > 1 else None
        with LLM(**STRATEGIES[name], **OPTIONS, max_batch=4, placement=place) as llm:
            runs.append(llm.run(PROMPTS[:4], [GREEDY, SAMPLED, GREEDY, SAMPLED]))
    one, two = (run.metrics.mean_accepted_length for run in runs)
    assert two > 0.8 * one > 0.5


@pytest.mark.full
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", ["sync_chain", "async_tree", "sync_tree"])
def test_sampled_text_follows_the_target(name: str, ranks: int, tiny_pair: Any) -> None:
    extent = Extent(num_prompts=12, batches=(), temperatures=(1.0,), draws=600)
    report = check(
        [STRATEGIES[name]], target=tiny_pair.target, draft=tiny_pair.draft, extent=extent, draft_link="inline",
        placement=placement(ranks), **OPTIONS,
    )  # fmt: skip
    assert found_wrong(report) == set()
    assert all(path.impossible == 0 for path in report.paths)


@pytest.mark.full
def test_sampled_text_depends_on_the_seed_alone(two_ranks: LLM) -> None:
    together = [output.token_ids for output in two_ranks.generate(PROMPTS, SAMPLED)]
    assert together == [output.token_ids for output in two_ranks.generate(PROMPTS, SAMPLED)]


def test_what_ranks_cannot_share_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be shared by 3 devices: it has 8 heads, .* which 1, 2, 4, 8 divide"):
        LLM(strategy="autoregressive", **OPTIONS, placement=placement(3))
    with pytest.raises(ModelLoadError, match=r"the folder .*gone does not exist"):
        LLM(str(tmp_path / "gone"), strategy="autoregressive", **OPTIONS, placement=placement(2))
    config = tiny_config(vocab_size=64)
    made = from_tensors(config, random_tensors(config), dtype="float32")
    with pytest.raises(ConfigError, match="made in memory, and the other ranks are processes that load it by name"):
        LLM(made, strategy="autoregressive", **OPTIONS, placement=placement(2))


@pytest.mark.full
def test_nothing_stays_when_it_is_closed() -> None:
    before, descriptors = leftovers(), len(os.listdir("/proc/self/fd"))
    with LLM(strategy="autoregressive", **OPTIONS, placement=placement(2)) as llm:
        (process,) = [each.process_id for each in llm._engine._runner.executor._team.reports[1:]]  # type: ignore[attr-defined]
        assert Path(f"/proc/{process}").exists() and leftovers() == before
        llm.generate("Hello", SamplingParams(max_tokens=2))
    assert not Path(f"/proc/{process}").exists() and leftovers() == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors
