"""transformers beside ours: the same ids in, the same lengths out, and every difference placed and weighed."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
import torch

from ssd_lab.bench import peers
from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.contenders import PEERS, peer_names
from ssd_lab.bench.peers import PeerResult, first_difference, run_peers
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.results import Output

if TYPE_CHECKING:
    from conftest import TinyPair

PROMPTS = ["the cat sat on the mat", "one two three one two", "x = 1\ny = x + x + 1\n"]
LENGTH = 12


def config_for(pair: TinyPair, **fields: object) -> BenchConfig:
    given = {
        "strategy": "sync_chain", "strategy_fields": {"k": 3}, "target": pair.target, "draft": pair.draft,
        "datasets": ("example",), "num_sequences": 1, "input_len": 32, "output_len": LENGTH, "dtype": "float32",
        "max_model_len": 128, "block_size": 16, "peers": ("transformers",), "repeats": 2,
        "threads": 1,  # two threads that wait for each other are slow where cores are shared
    }  # fmt: skip
    return BenchConfig.model_validate(given | fields)


def own_outputs(pair: TinyPair, **params: object) -> list[Output]:
    with LLM(pair.target, pair.draft, "sync_chain", k=3, chat=False, dtype="float32", threads=1, progress=False) as llm:
        return llm.generate(PROMPTS, SamplingParams(max_tokens=LENGTH, ignore_eos=True, **params))


@pytest.fixture(scope="module")
def outputs(tiny_pair: TinyPair) -> list[Output]:
    return own_outputs(tiny_pair)


@pytest.fixture(scope="module")
def results(tiny_pair: TinyPair, outputs: list[Output]) -> dict[str, PeerResult]:
    return run_peers(config_for(tiny_pair), PROMPTS, outputs)


def test_transformers_stands_for_all_its_ways(results: dict[str, PeerResult]):
    assert list(results) == list(PEERS)
    assert {"transformers", "transformers_assisted", "transformers_prompt_lookup"} <= set(results)


def test_every_way_writes_our_text_and_as_much_of_it(results: dict[str, PeerResult]):
    for result in results.values():
        assert result.num_tokens == LENGTH * len(PROMPTS)
        assert (result.num_same, result.differences) == (len(PROMPTS), ())


def test_ours_was_timed_in_the_same_turns(results: dict[str, PeerResult]):
    own = {result.own_seconds for result in results.values()}
    assert len(own) == 1
    for result in results.values():
        assert len(result.seconds) == len(result.own_seconds) == 2
        ratios = sorted(theirs / ours for theirs, ours in zip(result.seconds, result.own_seconds, strict=True))
        assert ratios[0] <= result.own_speedup <= ratios[-1]
        assert result.tokens_per_second > 0


def test_results_become_plain_data(results: dict[str, PeerResult]):
    result = dataclasses.replace(results["transformers"], differences=(peers.Difference(0, 3, 1, 2, 0.5),))
    stored = json.loads(json.dumps(result.as_dict()))
    assert stored["num_same"] == len(PROMPTS) - 1
    assert stored["differences"] == [{"prompt": 0, "position": 3, "own_token": 1, "peer_token": 2, "logit_gap": 0.5}]


def test_a_batch_padded_on_the_left_writes_the_same_text(tiny_pair: TinyPair, outputs: list[Output]):
    config = config_for(tiny_pair, batch=3, peers=("transformers",), draft=None, strategy="autoregressive",
                        strategy_fields={}, repeats=1)  # fmt: skip
    found = run_peers(config, PROMPTS, outputs)
    assert found["transformers"].batch == 3
    assert found["transformers"].num_same == len(PROMPTS)
    assert found["transformers_prompt_lookup"].batch == 1
    assert "transformers_assisted" not in found  # no draft was given


def test_a_difference_is_found_where_a_text_was_changed(tiny_pair: TinyPair, outputs: list[Output]):
    changed = list(outputs)
    token_ids = list(outputs[1].token_ids)
    token_ids[5] = (token_ids[5] + 1) % 256
    changed[1] = dataclasses.replace(outputs[1], token_ids=token_ids)
    config = config_for(tiny_pair, peers=("transformers_prompt_lookup",), repeats=1)
    (difference,) = run_peers(config, PROMPTS, changed)["transformers_prompt_lookup"].differences or ()
    assert (difference.prompt, difference.position) == (1, 5)
    assert difference.own_token == token_ids[5]
    assert difference.peer_token == outputs[1].token_ids[5]
    assert difference.logit_gap is not None and difference.logit_gap < 0  # ours is the worse one


def test_the_gap_is_the_targets_own(tiny_pair: TinyPair, outputs: list[Output]):
    prompt, own = outputs[0].prompt_ids, outputs[0].token_ids
    with LLM(tiny_pair.target, None, "autoregressive", dtype="float32", threads=1, progress=False) as llm:
        logits = llm.score([*prompt, *own[:2]])[-1]
        second = int(torch.topk(logits, 2).indices[1])
        difference = first_difference(0, prompt, own, [*own[:2], second, 0], llm)
        shorter = first_difference(0, prompt, own, own[:4], llm)
    assert difference is not None and shorter is not None
    assert difference.position == 2
    assert difference.logit_gap == pytest.approx(float(logits.max() - logits[second]), rel=1e-5)
    assert (shorter.position, shorter.own_token, shorter.peer_token, shorter.logit_gap) == (4, own[4], None, None)


@pytest.mark.full
def test_sampled_texts_are_not_compared(tiny_pair: TinyPair):
    sampled = own_outputs(tiny_pair, temperature=0.8, seed=1)
    config = config_for(tiny_pair, temperature=0.8, repeats=1)
    for result in run_peers(config, PROMPTS, sampled).values():
        assert (result.num_same, result.differences) == (None, None)
        assert result.num_tokens == LENGTH * len(PROMPTS)


def test_the_peer_stops_where_ours_stops_when_the_end_counts(tiny_pair: TinyPair, outputs: list[Output]):
    from ssd_lab.bench.contenders import TransformersPair

    end = outputs[0].token_ids[4]
    first = outputs[0].token_ids.index(end)
    pair = TransformersPair(tiny_pair.target, None, dtype=torch.float32, device="cpu", threads=1, eos_token_ids=[end])
    texts = pair.generate("plain", 3).generate([output.prompt_ids for output in outputs], LENGTH)
    assert texts[0] == outputs[0].token_ids[: first + 1]


@pytest.mark.full
def test_a_peer_may_use_every_thread_that_ours_uses_for_target_and_draft_together(tiny_pair: TinyPair):
    def threads(strategy: str, **fields: object) -> int:
        with LLM(tiny_pair.target, tiny_pair.draft, strategy, dtype="float32", progress=False, **fields) as llm:
            return peers.all_threads(llm)

    # all cores, however ours shares them, and one for either model where there is but one
    assert threads("async_tree") == max(2, threads("autoregressive"))
    assert threads("autoregressive", threads=1) == 1
    assert threads("async_tree", threads=1) > 1


def test_transformers_says_nothing_of_its_own(tiny_pair: TinyPair, outputs: list[Output], capfd: pytest.CaptureFixture):
    run_peers(config_for(tiny_pair, repeats=1), PROMPTS, outputs)
    assert capfd.readouterr() == ("", "")


def test_wrong_peers_are_named():
    assert peer_names(["transformers_prompt_lookup"], has_draft=False) == ["transformers_prompt_lookup"]
    assert "transformers_assisted" in peer_names(["transformers"], has_draft=True)
    with pytest.raises(ConfigError, match="'vllm' is not known: transformers,"):
        peer_names(["vllm"], has_draft=True)
    with pytest.raises(ConfigError, match="needs a draft model"):
        peer_names(["transformers_assisted"], has_draft=False)
