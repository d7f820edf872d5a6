"""The built site in Debian's Firefox, where it is installed: the story, the main pages, and the model in the page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the documentation's packages are not installed: pip install -e '.[docs]'")
pytest.importorskip("websocket", reason="SKIPPED ALOUD: websocket-client is not installed")
from firefox import RIGHT, firefox
from test_browser_site import address, site  # noqa: F401 (fixtures)

PAGES = ("views.html", "comparison.html", "tutorials/02_from_scratch.html", "assets/rounds/tree.html")
FITS = "document.documentElement.scrollWidth <= innerWidth"
PROMPT = "Why is teamwork important?"
CHOOSE = """(name) => {
  const select = document.querySelector("select[name=strategy]");
  select.value = name;
  select.dispatchEvent(new Event("change", { bubbles: true }));
}"""
DONE = "document.querySelector('[data-playground=status]').innerText.startsWith('done')"


@pytest.mark.browser
@pytest.mark.full
@pytest.mark.timeout(400)  # where the site is not yet built
@pytest.mark.skipif(shutil.which("firefox-esr") is None, reason="SKIPPED ALOUD: apt-get install firefox-esr")
def test_the_site_and_its_model_work_in_firefox(address: str, tmp_path: Path):  # noqa: F811
    with firefox(shutil.which("firefox-esr") or "", tmp_path) as page:
        page.open(address)
        assert page.text(".ssd-beat-title").startswith("1.")
        page.press(RIGHT)
        assert page.text(".ssd-beat-title").startswith("2.")
        for path in PAGES:
            page.open(address + path)
            assert page.value(FITS), path
        page.open(address + "try-it.html")
        page.wait("!!document.querySelector('[data-try=load]')")
        page.click("[data-try=load]")
        page.wait("!!document.querySelector('[data-ready=true]')")
        for name, given in (("prompt", PROMPT), ("max_tokens", "16")):
            page.click(f"[name={name}]")
            page.value(f"document.querySelector('[name={name}]').select()")
            page.press(*given)
        texts = []
        for strategy in ("async_tree", "autoregressive"):
            page.value(f"({CHOOSE})({strategy!r})")
            page.click("[data-do=run]")
            page.wait(DONE)
            texts.append(page.text("[data-playground=text]"))
        assert texts[0] == texts[1] and len(texts[0]) > 20
        assert page.problems(address) == []
