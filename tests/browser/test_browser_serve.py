"""The live page of a server in a browser: requests that run, those that ended, and the rounds of one."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from ssd_lab.serve.app import make_app
from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.served import load_served
from ssd_lab.serve.server import running

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    config = ServeConfig(port=0, recent=3)
    models = load_served(strategies=["async_tree"], draft_link="inline")
    with models, running(make_app(models, config), config) as url:
        yield f"{url}/"


def ask(address: str, prompt: str, tokens: int) -> None:
    body = {"model": "bundled", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    httpx.post(f"{address}v1/completions", json=body, timeout=60).raise_for_status()


@pytest.mark.quick("dark")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_requests_and_the_rounds_of_one(open_page, address, keep_picture, theme):
    for number in range(4):
        ask(address, f"<b>Request {number}</b>", 12)
    with open_page(address, theme=theme) as page:
        page.locator("#rows tr").first.wait_for()
        assert page.locator("#rows tr").count() == 3  # the oldest was forgotten
        first = page.locator("#rows tr").first
        assert "<b>Request 3</b>" in first.inner_text() and "length" in first.inner_text()
        first.locator("button").focus()
        page.keyboard.press("Enter")
        views = page.frame_locator("#views")
        views.locator(".ssd-where").first.wait_for()
        assert "1" in views.locator(".ssd-where").first.inner_text()
        ask(address, "Later", 4)
        page.evaluate("refresh()")
        assert "Request 3" in page.evaluate("document.activeElement.closest('tr').innerText")  # its row has moved
        page.evaluate("getSelection().selectAllChildren(document.querySelector('#rows td.words'))")
        ask(address, "Last", 4)
        page.evaluate("refresh()")
        assert page.evaluate("String(getSelection())") == "Later"  # may be copied
        page.evaluate("getSelection().empty()")
        page.locator("#rows tr", has_text="Last").wait_for()
        keep_picture(page, f"serve-{theme}")


def test_a_running_request_is_shown_while_it_runs(open_page, address, hold):
    hold()
    body = {"model": "bundled", "prompt": "On", "max_tokens": 900, "ignore_eos": True, "stream": True}
    with open_page(address) as page, httpx.stream("POST", f"{address}v1/completions", json=body, timeout=60) as stream:
        lines = stream.iter_lines()  # an iterator that is let go ends the request
        assert next(lines)
        page.locator("#rows tr", has_text="running").first.wait_for()
        assert page.locator("#state").inner_text().startswith("1 running")
        stream.close()
        page.locator("#rows tr", has_text="cancelled").first.wait_for()
        assert page.locator("#state").inner_text().startswith("0 running")
