"""The load generator with the real server, started for it."""

from __future__ import annotations

import hashlib

import pytest

import ssd_lab
from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.inputs import prompts_of
from ssd_lab.bench.serving.config import LoadConfig
from ssd_lab.bench.serving.own_server import own_server
from ssd_lab.bench.serving.run import chosen_model, run_load
from ssd_lab.client.address import Address
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ServerError

pytest.importorskip("fastapi", reason="the server's packages are not installed: pip install -e '.[serve]'")
FLAGS = ["--threads", "1", "--batch", "4"]


@pytest.mark.full
def test_our_server_answers_with_the_texts_of_a_run():
    with own_server(["-s", "sync_chain k=4", *FLAGS]) as server:
        address = Address.of(server.url)
        model = chosen_model(address, None)
        load = LoadConfig(url=address.base, model=model, concurrency=3, warmup=1)
        config = BenchConfig(target=model, datasets=("example",), num_sequences=5, output_len=16, load=load)
        result = run_load([config], [address])[0]
        prompts = prompts_of(config, "example", None)[:5]
    requests = {request.prompt_id: request for request in result.datasets["example"].repeats[0].requests}
    assert not [note for note in result.notes if "failed" in note or "without token counts" in note]
    with ssd_lab.LLM(strategy="autoregressive", progress=False, threads=1) as llm:
        params = SamplingParams(max_tokens=16, ignore_eos=True)
        plain = llm.generate([prompt.text for prompt in prompts], params)
    for prompt, output in zip(prompts, plain, strict=True):
        request = requests[f"{prompt.id}/text"]
        assert request.digest == hashlib.blake2b(output.text.encode(), digest_size=8).hexdigest()
        assert request.num_output_tokens == 16
        assert request.num_prompt_tokens == len(output.prompt_ids)


@pytest.mark.full
def test_a_server_that_cannot_start_says_why():
    with pytest.raises(ServerError, match="unknown strategy 'nonsense'"), own_server(["-s", "nonsense"]):
        pass
