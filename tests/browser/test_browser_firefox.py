"""The built site in Debian's Firefox, where it is installed: the story, the main pages, and the model in the page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ssd_lab

pytest.importorskip("mkdocs", reason="the documentation's packages are not installed: pip install -e '.[docs]'")
pytest.importorskip("websocket", reason="SKIPPED ALOUD: websocket-client is not installed")
from firefox import RIGHT, firefox
from test_browser_site import address, site  # noqa: F401 (fixtures)

PAGES = ("views.html", "comparison.html", "tutorials/02_from_scratch.html", "assets/rounds/tree.html")
FITS = "document.documentElement.scrollWidth <= innerWidth"
PROMPT = "Why is teamwork important?"


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
        page.click("[data-do=run]")
        page.wait("document.querySelector('[data-playground=status]').innerText.includes('done')")
        alone = ssd_lab.run(PROMPT, strategy="autoregressive", dtype="float32", max_tokens=16, progress=False)
        assert page.text("[data-playground=text]").strip() == alone.text.strip()
        assert page.problems(address) == []
