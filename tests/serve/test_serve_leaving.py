"""Clients that leave in the middle, and many at once: blocks are free after, and every text is the offline one."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

import ssd_lab

LONG = {"model": "bundled", "messages": [{"role": "user", "content": "Tell a long story."}], "ignore_eos": True}
WAIT_S = 30.0


def until(condition, within_s=WAIT_S):
    """Does it become true within this time?"""
    end_s = time.monotonic() + within_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)
    return condition()


def is_idle(models):
    """Does nobody hold a place or a block?"""
    for model in models:
        status = model.llm.status()
        if model.admission.under_way or status.running or status.waiting or status.free_blocks != status.num_blocks:
            return False
    return True


def leave_streams(url, count, after):
    """Open so many streams at once, and leave each after some chunks."""

    async def one(client, number):
        body = {**LONG, "stream": True, "max_tokens": 400, "temperature": 1.0, "seed": number}
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            chunks = 0
            async for _ in answer.aiter_lines():
                chunks += 1
                if chunks > after:
                    return

    async def everybody():
        async with httpx.AsyncClient(timeout=WAIT_S * 4, limits=httpx.Limits(max_connections=count)) as client:
            await asyncio.gather(*(one(client, number) for number in range(count)))

    asyncio.run(everybody())


def test_streams_that_are_left_free_their_blocks(url, models):
    leave_streams(url, 12, after=3)
    assert until(lambda: is_idle(models))


@pytest.mark.parametrize("sent", [b"", b"POST /v1/comp", b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\nGET /rea"])
def test_a_connection_on_which_no_request_comes_is_closed(url, monkeypatch, sent):
    monkeypatch.setattr("ssd_lab.serve.connection.HEAD_S", 0.05)
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=WAIT_S) as connection:
        connection.sendall(sent)
        answered = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answered.startswith(b"HTTP/1.1 200") == (b"/ready" in sent)


@pytest.mark.full
def test_two_hundred_clients_that_leave_in_the_middle(url, models):
    leave_streams(url, 200, after=1)
    assert until(lambda: is_idle(models))


def test_a_client_that_waits_for_the_whole_answer_may_leave_too(url, models, hold):
    hold()
    address = urlsplit(url)
    body = b'{"model": "bundled", "prompt": "Once", "max_tokens": 900, "ignore_eos": true}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head % len(body) + body)
        assert until(lambda: not is_idle(models))
    assert until(lambda: is_idle(models))


@pytest.mark.full
def test_many_clients_at_once_get_the_offline_texts(client, models):
    count = 20  # more than a batch of 16
    llm = next(iter(models)).llm
    prompts = [f"Number {number} is" for number in range(count)]
    params = [ssd_lab.SamplingParams(max_tokens=12, temperature=0.7 * (i % 2), seed=i) for i in range(count)]
    expected = [output.text for output in llm.generate(prompts, params)]

    def ask(number):
        asked = {"model": "bundled", "prompt": prompts[number], "max_tokens": 12, "seed": number}
        chunks = client.completions.create(**asked, temperature=0.7 * (number % 2), stream=True)
        return "".join(chunk.choices[0].text for chunk in chunks)

    with ThreadPoolExecutor(count) as pool:
        assert list(pool.map(ask, range(count))) == expected
    assert until(lambda: is_idle(models))
