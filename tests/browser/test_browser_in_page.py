"""The bundled pair in the reader's page, in real Chromium, against the Python engine in the same number format."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mkdocs", reason="the documentation's packages are not installed: pip install -e '.[docs]'")
from browser_pages import no_sideways_scrolling
from in_page_site import ROOT, served, write_page

import ssd_lab
from ssd_lab import demo
from ssd_lab.bench.data.load import load_prompts
from ssd_lab.models.text.tokenizer import Tokenizer
from ssd_lab.trace import Trace
from ssd_lab.widgets.view_model import view_data

pytestmark = pytest.mark.browser

STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {},
    "sync_chain": {"k": 4},
    "async_tree": {"k": 3, "f": 2},
    "prompt_lookup": {"k": 4},
}
# Both engines compute in float32 and sum in different orders. A choice that is won by more than this is the same in
# both: it is over ten times the largest difference of their logits (`test_both_engines_see_the_same_probabilities`).
LEAD = 1e-3
RUN = """async (order) => {
  const fields = { k: 0, f: 1, saguaro_c: 1, ...order.fields };
  const trace = await ssdLabTryIt.engine.run({ temperature: 0, seed: 0, ...order, fields });
  return { lines: ssdLabTesting.lines(trace), view: ssdLabTesting.view(order.strategy, trace) };
}"""


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Both models loaded, by the click of a reader; no error, no warning, nothing from elsewhere."""
    folder = tmp_path_factory.mktemp("in_page")
    write_page(folder)
    with served(folder) as address:
        context = browser.new_context()
        context.set_default_timeout(60_000)
        opened = context.new_page()
        problems: list[str] = []
        opened.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("request", lambda r: None if r.url.startswith((address, "data:")) else problems.append(r.url))
        opened.goto(address)
        opened.locator("[data-try=load]").click()
        opened.locator("[data-ready=true]").wait_for()
        yield opened
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def in_page(page: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`in_page(strategy, prompt, ..)`: the trace of a run in the page, by way of its file, and what its views show."""
    folder = tmp_path_factory.mktemp("traces")

    def run(strategy: str, prompt: str, max_tokens: int, **options: Any) -> tuple[Trace, dict[str, Any]]:
        order = {"strategy": strategy, "fields": STRATEGIES[strategy], "prompt": prompt, "max_tokens": max_tokens}
        made = page.evaluate(RUN, order | options)
        (folder / "trace.jsonl").write_text(made["lines"], encoding="utf-8")
        return ssd_lab.load_trace(folder / "trace.jsonl"), made["view"]

    return run


def python_llm(strategy: str, **fields: Any) -> ssd_lab.LLM:
    """One request after the other, so that its rounds are those of a page, too."""
    given = {"dtype": "float32", "device": "cpu", "max_batch": 1, "record": True, "progress": False, **fields}
    return ssd_lab.LLM(strategy=strategy, draft_link="inline", **given)


def python_trace(strategy: str, prompts: list[str], max_tokens: int) -> Trace:
    with python_llm(strategy, **STRATEGIES[strategy]) as llm:
        return llm.run(prompts, ssd_lab.SamplingParams(max_tokens=max_tokens)).trace


def rounds_of(trace: Trace, request_id: int = 0) -> list[Any]:
    return [own for one in trace.rounds for own in one.sequences if own.request_id == request_id]


def same_text(ours: Trace, token_ids: list[int]) -> bool:
    """Is the page's text Python's? Raises AssertionError where it differs and no choice was nearly even."""
    same = ours.requests[0].token_ids == token_ids
    assert same or ours.meta["smallest_lead"] < LEAD, (ours.requests[0].token_ids, token_ids)
    return same


def test_the_tokenizer_is_the_checkpoints(page: Any):
    theirs = Tokenizer.from_folder(demo.TARGET)
    odd = [
        "",
        " ",
        "a  b\n\n c\t",
        "It's 12,345.67 €!",
        "naïve 北京 🙂\u200d🙂",
        "<|im_end|> x",
        "don't we'll",
        "½ Ⅷ ٣",
        "\ufeffa\x85b",
    ]
    texts = [*demo.canned_prompts(), *odd, (ROOT / "README.md").read_text(encoding="utf-8")]
    script = """(texts) => {
        const own = ssdLabTryIt.engine.tokenizer;
        return texts.map((text) => [own.encode(text), own.decode(own.encode(text))]);
    }"""
    for text, (ids, back) in zip(texts, page.evaluate(script, texts), strict=True):
        assert ids == theirs.encode(text) and back == theirs.decode(ids), text


def test_greedy_text_of_every_strategy_is_pythons(in_page: Any, keep_figure: Any):
    prompts = demo.canned_prompts()[1:3]
    python = [request.token_ids for request in python_trace("autoregressive", prompts, 20).requests]
    for prompt, token_ids in zip(prompts, python, strict=True):
        traces = {strategy: in_page(strategy, prompt, 20)[0] for strategy in STRATEGIES}
        same_text(traces["autoregressive"], token_ids)
        texts = {strategy: trace.requests[0].token_ids for strategy, trace in traces.items()}
        assert all(text == texts["autoregressive"] for text in texts.values()), "in the page, bit for bit"
        assert len(rounds_of(traces["async_tree"])) < len(token_ids)
    for strategy, trace in traces.items():
        keep_figure(f"in page: {strategy}: tokens/s", trace.metrics.tokens_per_second)


def test_both_engines_see_the_same_probabilities(in_page: Any, keep_figure: Any):
    """Of the tokens that were chosen; the differences are those of logits."""
    prompt = demo.canned_prompts()[-1]
    pairs = zip(
        rounds_of(in_page("autoregressive", prompt, 32)[0]),
        rounds_of(python_trace("autoregressive", [prompt], 32)),
        strict=True,
    )
    apart = [
        abs(math.log(a.recovery_prob) - math.log(b.recovery_prob))
        for a, b in pairs
        if a.recovery_token == b.recovery_token
    ]
    assert len(apart) >= 16 and max(apart) < LEAD / 10
    keep_figure("in page: largest difference of log probabilities, millionths", 1e6 * max(apart))


@pytest.mark.parametrize(
    "strategy",
    ["async_tree", *(pytest.param(name, marks=pytest.mark.full) for name in ("sync_chain", "prompt_lookup"))],
)
def test_rounds_are_pythons_and_so_is_sampled_text(in_page: Any, strategy: str):
    """The same seed draws the same random numbers, so that but for the last bits of a sum all is the same."""
    prompts = demo.canned_prompts()[5:8]
    fields = STRATEGIES[strategy] | ({"saguaro_c": 0.5} if strategy == "async_tree" else {})
    params = [ssd_lab.SamplingParams(temperature=0.9, seed=seed, max_tokens=16) for seed in range(len(prompts))]
    with python_llm(strategy, **fields) as llm:
        python = llm.run(prompts, params).trace
    same = 0
    for seed, prompt in enumerate(prompts):
        trace, _ = in_page(strategy, prompt, 16, seed=seed, fields=fields, temperature=0.9)
        theirs = next(request.request_id for request in python.requests if request.prompt == prompt)
        same += told(rounds_of(trace)) == told(rounds_of(python, theirs))
    assert same >= 2, "one of three may meet a coin that lies within rounding of its threshold"


def told(rounds: list[Any]) -> list[Any]:
    """What is compared of rounds; of the last one nobody asked what was prepared in it."""
    names = ("position", "draft_tokens", "num_accepted", "recovery_token", "num_emitted", "origin", "cache_hit")
    prepared = [(own.recovery_rank, own.fan_out) for own in rounds[:-1]]
    return [[getattr(own, name) for name in names] for own in rounds] + prepared


@pytest.mark.parametrize("temperature", [0, 1])
def test_views_of_a_run_in_the_page_are_those_of_its_trace(in_page: Any, temperature: float):
    for strategy in STRATEGIES:
        trace, view = in_page(strategy, "Write a function to reverse a string.", 24, temperature=temperature)
        expected = json.loads(json.dumps(view_data({strategy: trace})))
        (ours,), (theirs,) = view["runs"], expected["runs"]
        theirs["clocks"] = theirs["clocks"][:1]  # the simulator is Python's
        del ours["from_round"]
        for request in ours["requests"]:
            del request["from_step"]
        assert set(theirs["texts"]) == set(ours["texts"])
        for cache in (ours["cache"], theirs["cache"]):  # fitted by sums in another order
            cache["power_law"] = cache["power_law"] and [f"{value:.4g}" for value in cache["power_law"]]
        for name in theirs:
            assert ours[name] == theirs[name], (strategy, name)
        assert view["opening"] == expected["opening"]
        assert trace.metrics.num_output_tokens == len(trace.requests[0].token_ids)


def test_a_reader_runs_it_stops_it_and_saves_it(page: Any, tmp_path: Path):
    status = page.locator("[data-playground=status]")
    page.locator("input[name=max_tokens]").fill("0")
    page.locator("[data-do=run]").click()
    assert "max_tokens is 0: it must be a whole number from 1 to 1024" in page.get_by_role("alert").inner_text()
    page.locator("input[name=max_tokens]").fill("1000")
    page.locator("input[name=temperature]").fill("5")
    page.locator("[data-do=run]").focus()
    page.keyboard.press("Enter")
    page.locator(".ssd-stepper [data-place]").first.wait_for()
    page.locator("[data-do=stop]").click()
    page.locator("[data-playground=status]:has-text('stopped')").wait_for()
    page.locator("select[name=strategy]").select_option("sync_chain")
    page.locator("input[name=max_tokens]").fill("12")
    page.locator("input[name=temperature]").fill("0")
    page.locator("[data-do=run]").click()
    page.locator("[data-playground=status]:has-text('done')").wait_for()
    assert "the closest choice was won by" in status.inner_text()
    page.set_viewport_size({"width": 390, "height": 900})
    assert no_sideways_scrolling(page)
    page.locator("summary", has_text="Tell this round").click()
    page.locator(".ssd-beat-title", has_text=re.compile(r"^1\.")).wait_for()
    page.locator("[data-do=first]").click()
    page.locator("[data-story=next]").click()
    page.locator(".ssd-beat-title", has_text="rows cost as one").wait_for()
    with page.expect_download() as download:
        page.locator("[data-try=keep]").click()
    download.value.save_as(tmp_path / "saved.jsonl")
    trace = ssd_lab.load_trace(tmp_path / "saved.jsonl")
    assert trace.requests[0].text == page.locator("[data-playground=text]").inner_text()
    assert ssd_lab.simulate(trace, hardware="published-4xh100+1").rounds


def test_opened_from_a_file_it_says_what_to_do(browser: Any, tmp_path: Path):
    write_page(tmp_path)
    context = browser.new_context()
    opened = context.new_page()
    opened.goto((tmp_path / "index.html").as_uri())
    opened.locator("[data-try=load]").click()
    assert "python -m http.server" in opened.locator("[data-try=words]").inner_text()
    context.close()


MANY = """async ({ prompts, fields, max_tokens }) => {
  const found = [];
  for (const prompt of prompts) {
    const order = { strategy: "async_tree", fields: { saguaro_c: 1, ...fields }, prompt, max_tokens };
    const trace = await ssdLabTryIt.engine.run({ ...order, temperature: 0, seed: 0 });
    const rounds = trace.rounds.map(({ sequences: [own] }) => [own.num_accepted, own.cache_hit]);
    found.push({ token_ids: trace.requests[0].token_ids, lead: trace.meta.smallest_lead, rounds });
  }
  return found;
}"""


@pytest.mark.extended
@pytest.mark.full
def test_texts_of_fifty_prompts_are_pythons(page: Any, keep_figure: Any):
    """Asynchronous trees in the page beside the target alone in Python; acceptance and hits beside Python's."""
    prompts, fields, length = fifty_prompts(), STRATEGIES["async_tree"], 12
    ours = page.evaluate(MANY, {"prompts": prompts, "fields": fields, "max_tokens": length})
    params = ssd_lab.SamplingParams(max_tokens=length)
    with python_llm("autoregressive", max_batch=16) as llm:
        alone = [output.token_ids for output in llm.generate(prompts, params)]
    with python_llm("async_tree", **fields) as llm:
        theirs = [own for one in llm.run(prompts, params).trace.rounds for own in one.sequences]
    differ = [i for i, own in enumerate(ours) if own["token_ids"] != alone[i]]
    assert all(ours[i]["lead"] < LEAD for i in differ), [(prompts[i], ours[i], alone[i]) for i in differ]
    assert len(differ) <= 1, "a choice as even as that is rare"
    keep_figure("in page: texts of 50 that are Python's", 50 - len(differ))
    keep_figure("in page: smallest lead of a choice, thousandths", 1e3 * min(own["lead"] for own in ours))
    rounds = [own for one in ours for own in one["rounds"]]
    assert len(rounds) < 0.6 * sum(map(len, alone))
    pairs = (
        ([accepted / fields["k"] for accepted, _ in rounds], [own.num_accepted / fields["k"] for own in theirs]),
        ([hit for _, hit in rounds if hit is not None], [own.cache_hit for own in theirs if own.cache_hit is not None]),
    )
    for page_has, python_has in pairs:
        x, y = (sum(values) / len(values) for values in (page_has, python_has))
        assert 0.2 < x < 1 and abs(x - y) < 3 * math.sqrt(0.25 / len(page_has) + 0.25 / len(python_has))


def fifty_prompts() -> list[str]:
    """The bundled ones, and the shortest of a benchmark's."""
    canned = demo.canned_prompts()
    others = sorted((prompt.text for prompt in load_prompts("gsm8k", None)), key=len)
    return [*canned, *others[: 50 - len(canned)]]


def test_target_and_draft_work_at_the_same_time(in_page: Any):
    """Spans of the two workers overlap, whatever they take."""
    trace, _ = in_page("async_tree", demo.canned_prompts()[0], 24)
    spans = [activity for one in trace.rounds for activity in one.activities]
    verify = [(a.start_s, a.end_s) for a in spans if a.name == "verify"]
    trees = [(a.start_s, a.end_s) for a in spans if a.name == "tree"]
    assert len(trees) >= 3 and any(start < end_ and start_ < end for start, end in trees for start_, end_ in verify)
    assert all(before.end_s <= after.start_s + 1e-6 for before, after in pairwise(trace.rounds))
