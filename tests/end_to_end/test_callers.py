"""One LLM, several callers at once: each gets what it would have got alone, and nobody else's trouble."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
from end_to_end_cases import PROMPTS, STRATEGIES
from replay_graphs import Backends

from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.proposer import NoProposer
from ssd_lab.engine.round_records import KeptRound
from ssd_lab.errors import ConfigError, EngineStoppedError, ForkedProcessError, PromptError, ProposerError
from ssd_lab.results import RunResult
from ssd_lab.strategies import Context, SequenceStrategy
from ssd_lab.trace import Trace

QUICK = ("sync k=4", "async fast", "tree fixed", "cascade tree", "prompt lookup")  # of each kind one; `full` has all
EVERY = pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in STRATEGIES]
)
LEARNING = ("async geometric, auto", "async dynamic", "sync dynamic")  # what was drafted before decides what is drafted
LONG = SamplingParams(max_tokens=400, ignore_eos=True)


def sampled(index: int, tokens: int = 24, strategy: str = "") -> SamplingParams:
    """Every second one greedy; all of them where the drafts are others each time, and with them a seed's text."""
    temperature = 0.0 if strategy in LEARNING else index % 2 * 0.9
    return SamplingParams(max_tokens=tokens, temperature=temperature, seed=index, ignore_eos=True)


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def under_way(llm: LLM) -> int:
    """Requests that the engine has."""
    status = llm.status()
    return status.running + status.waiting


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What each returns or raises, each in a thread of its own."""
    results: list[Any] = [None] * len(works)

    def run(index: int) -> None:
        try:
            results[index] = works[index]()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not any(thread.is_alive() for thread in threads)
    return results


def rows_of(trace: Trace) -> list[tuple[int, int, int, int]]:
    return [
        (row.request_id, row.position, row.num_accepted, row.recovery_token)
        for each in trace.rounds
        for row in each.sequences
    ]


def assert_is_its_own(result: RunResult) -> None:
    """The trace tells these outputs, and no other request."""
    ids = {output.request_id for output in result.outputs}
    assert [request.request_id for request in result.trace.requests] == sorted(ids)
    assert [each.index for each in result.trace.rounds] == list(range(len(result.trace.rounds)))
    assert all(each.sequences for each in result.trace.rounds)
    for output in result.outputs:
        told = []
        for each in result.trace.rounds:
            for row in each.sequences:
                assert row.request_id in ids
                if row.request_id == output.request_id:
                    told += [*row.draft_tokens[: row.num_accepted], row.recovery_token][: row.num_emitted]
        assert told == output.token_ids
    counted = result.trace.meta["totals"]
    assert counted["emitted"] == sum(len(output.token_ids) for output in result.outputs)
    assert counted["rounds"] == len(result.trace.rounds)
    assert all(0 <= request.arrival_s <= request.first_token_s <= request.end_s for request in result.trace.requests)


@pytest.mark.quick("async fast", "tree fixed", full=QUICK)
@pytest.mark.grid(full=5)
@EVERY
def test_two_streams_read_in_turn_both_give_their_texts(make_llm, name: str) -> None:
    llm = make_llm(**STRATEGIES[name])
    alone = [llm.generate(PROMPTS[i], sampled(i, strategy=name))[0] for i in range(2)]
    streams = [llm.stream(PROMPTS[i], sampled(i, strategy=name)) for i in range(2)]
    chunks: list[list[Any]] = [[], []]
    while streams[0] or streams[1]:
        for index, stream in enumerate(streams):
            chunk = next(stream, None) if stream else None
            if chunk is None:
                streams[index] = None
            else:
                chunks[index].append(chunk)
    for expected, got in zip(alone, chunks, strict=True):
        assert "".join(chunk.text for chunk in got) == expected.text
        assert [token for chunk in got for token in chunk.token_ids] == expected.token_ids
        assert [chunk.finish_reason for chunk in got] == [None] * (len(got) - 1) + [expected.finish_reason]


@pytest.mark.quick("async fast", "prompt lookup", full=QUICK)
@pytest.mark.grid(full=5)
@EVERY
def test_a_generate_inside_a_stream_leaves_the_stream_alone(make_llm, name: str) -> None:
    llm = make_llm(**STRATEGIES[name])
    params = [sampled(i, 40, name) for i in (1, 2)]
    whole, other = (llm.generate(PROMPTS[i], params[i])[0] for i in (0, 1))
    text = ""
    for number, chunk in enumerate(llm.stream(PROMPTS[0], params[0])):
        if number == 1:
            assert llm.generate(PROMPTS[1], params[1])[0].token_ids == other.token_ids
        text, reason = text + chunk.text, chunk.finish_reason
    assert (text, reason) == (whole.text, whole.finish_reason)


@pytest.mark.full
@pytest.mark.grid(most=3)
@pytest.mark.parametrize("link", ["inline", "thread", "process"])
def test_eight_threads_get_the_texts_they_would_get_alone(make_llm, link: str) -> None:
    """Seeded requests of several callers in one batch, with runs and streams mixed, again and again."""
    llm = make_llm(**STRATEGIES["async jit"], draft_link=link, max_batch=5)
    alone = [llm.generate(PROMPTS[i % 6], sampled(i, 12))[0].token_ids for i in range(16)]

    def ask(index: int) -> list[list[int]]:
        chunks = llm.stream(PROMPTS[index % 6], sampled(index, 12))
        streamed = [token for chunk in chunks for token in chunk.token_ids]
        result = llm.run([PROMPTS[i % 6] for i in (index, index + 8)], [sampled(i, 12) for i in (index, index + 8)])
        assert_is_its_own(result)
        return [streamed, *(output.token_ids for output in result.outputs)]

    for index, got in enumerate(at_once(*(lambda index=index: ask(index) for index in range(8)))):
        assert got == [alone[index], alone[index], alone[index + 8]]


@pytest.mark.quick("async fast", full=["tree fixed"])
@pytest.mark.grid(full=5)
@EVERY
def test_each_run_has_a_right_trace_of_its_own(make_llm, name: str) -> None:
    llm = make_llm(**STRATEGIES[name], max_batch=6)
    works = [lambda i=i: llm.run(PROMPTS[2 * i : 2 * i + 2], sampled(i, 30, name)) for i in range(3)]
    alone = [work() for work in works]
    together = at_once(*works)
    for before, result in zip(alone, together, strict=True):
        assert_is_its_own(result)
        assert [output.token_ids for output in result.outputs] == [output.token_ids for output in before.outputs]


@pytest.mark.full
@pytest.mark.grid(full=3)
@pytest.mark.parametrize("name", ["sync k=4", "async fast", "async jit", "cascade tree"])
def test_callers_come_and_go_while_rounds_are_launched_ahead(make_llm, monkeypatch, name: str) -> None:
    """With graphs, as on a GPU: a round is on its way whenever somebody enters, leaves or ends."""
    llm = make_llm(**STRATEGIES[name])
    alone = [llm.generate(PROMPTS[i], sampled(i, 24))[0].token_ids for i in range(6)]
    Backends.installed(monkeypatch)
    llm = make_llm(**STRATEGIES[name], max_batch=4)

    def ask(index: int) -> None:
        for left_after in (1, 3, 5):
            result = llm.run(PROMPTS[index], sampled(index, 24))
            assert result.outputs[0].token_ids == alone[index]
            assert_is_its_own(result)
            stream = llm.stream(PROMPTS[5 - index], sampled(5 - index, 24))
            got = [token for _, chunk in zip(range(left_after), stream, strict=False) for token in chunk.token_ids]
            stream.close()
            assert got == alone[5 - index][: len(got)]

    assert at_once(*(lambda index=index: ask(index) for index in range(6))) == [None] * 6
    assert llm.num_free_blocks == llm._engine._blocks.num_usable
    assert not isinstance(llm._engine.proposer, NoProposer) or name == "autoregressive"


def test_the_rounds_of_a_run_are_those_it_has_alone(make_llm) -> None:
    """Greedy and without learning the rounds depend on the text alone: outcomes, positions and draft trees."""
    llm = make_llm(**STRATEGIES["async jit"], max_batch=6)
    run = lambda i: llm.run(PROMPTS[i], SamplingParams(max_tokens=30, ignore_eos=True))  # noqa: E731
    alone = [run(i).trace for i in range(3)]
    for before, result in zip(alone, at_once(*(lambda i=i: run(i) for i in range(3))), strict=True):
        own = [row[1:] for row in rows_of(result.trace)]
        assert own == [row[1:] for row in rows_of(before)]
        rounds = zip(before.rounds[:-1], result.trace.rounds[:-1], strict=True)
        assert all(a.sequences[0].tree.tokens == b.sequences[0].tree.tokens for a, b in rounds)


def test_steps_and_counts_are_the_callers_own(make_llm) -> None:
    llm = make_llm(strategy="autoregressive")
    seen: list[list[tuple[int, int]]] = [[], []]

    def counted(index: int, tokens: int) -> RunResult:
        watch = lambda steps, totals: seen[index].append((steps, totals.emitted))  # noqa: E731
        return llm.run(PROMPTS[index], SamplingParams(max_tokens=tokens, ignore_eos=True), on_step=watch)

    at_once(lambda: counted(0, 12), lambda: counted(1, 30))
    for own, tokens in zip(seen, (12, 30), strict=True):
        assert [steps for steps, _ in own] == list(range(1, len(own) + 1))
        emitted = [number for _, number in own]
        assert emitted == sorted(emitted) and emitted[-1] == tokens


def test_a_step_that_says_no_ends_its_callers_requests_alone(make_llm) -> None:
    llm = make_llm(strategy="autoregressive")
    whole = llm.generate(PROMPTS[1], sampled(1, 60))[0].token_ids
    ended, other = at_once(
        lambda: llm.run(PROMPTS[0], LONG, on_step=lambda steps, _: steps < 3).outputs[0],
        lambda: llm.generate(PROMPTS[1], sampled(1, 60))[0],
    )
    assert ended.finish_reason == "cancelled" and len(ended.token_ids) < 400
    assert other.token_ids == whole


def test_a_step_may_generate_something_itself(make_llm) -> None:
    llm = make_llm(**STRATEGIES["sync k=4"])
    expected = llm.generate(PROMPTS[1], sampled(1))[0].token_ids
    inner = []
    llm.run(PROMPTS[0], sampled(0), on_step=lambda *_: inner.append(llm.generate(PROMPTS[1], sampled(1))[0].token_ids))
    assert len(inner) > 2 and all(tokens == expected for tokens in inner)


def test_what_a_step_raises_is_its_callers_own(make_llm) -> None:
    llm = make_llm(strategy="autoregressive")
    whole = llm.generate(PROMPTS[1], sampled(1, 60))[0].token_ids

    def stumble(steps: int, totals: Any) -> None:
        if steps == 2:
            raise ZeroDivisionError("mine")

    raised, other = at_once(
        lambda: llm.run(PROMPTS[0], LONG, on_step=stumble), lambda: llm.generate(PROMPTS[1], sampled(1, 60))[0]
    )
    assert isinstance(raised, ZeroDivisionError)
    assert "stumble" in [frame.name for frame in _frames(raised)]
    assert other.token_ids == whole


def test_a_bad_prompt_is_its_callers_own(make_llm) -> None:
    llm = make_llm(strategy="autoregressive")
    whole = llm.generate(PROMPTS[1], sampled(1, 60))[0].token_ids
    stream = llm.stream(PROMPTS[1], sampled(1, 60))
    first = next(stream)
    with pytest.raises(PromptError):
        llm.generate([PROMPTS[0], "x" * 5000])
    assert [*first.token_ids, *(token for chunk in stream for token in chunk.token_ids)] == whole


class Stumbling(SequenceStrategy):
    """Fails in the fifth round of a request whose text begins with ids 7, 7."""

    strategy_name: ClassVar[str] = "stumbling"

    @property
    def lookahead(self) -> int:
        return 1

    def draft(self, context: Context) -> Sequence[int]:
        rounds = context.memory["rounds"] = context.memory.get("rounds", 0) + 1
        if context.token_ids[:2] == (7, 7) and rounds == 5:
            raise RuntimeError("out of ideas")
        return []


def _frames(error: BaseException) -> list[Any]:
    import traceback

    found = []
    while error is not None:
        found += traceback.extract_tb(error.__traceback__)
        error = error.__cause__
    return found


def test_a_failed_round_reaches_every_caller_as_an_error_of_its_own(make_llm, hold) -> None:
    llm = make_llm(strategy=Stumbling())
    expected = llm.generate(PROMPTS[1], sampled(1))[0].token_ids
    hold(after=3)

    def stumble() -> None:
        wait_until(lambda: under_way(llm) == 1)
        llm.generate([[7, 7, 1], [7, 7, 2]], LONG)

    def released() -> None:
        wait_until(lambda: under_way(llm) == 3)
        hold.release()

    first, second, _ = at_once(stumble, lambda: llm.generate([PROMPTS[0]], LONG), released)
    assert isinstance(first, ProposerError) and isinstance(second, ProposerError) and first is not second
    for error, prompts in ((first, 2), (second, 1)):
        assert "out of ideas" in str(error)
        assert "draft" in [frame.name for frame in _frames(error)], "the strategy's own traceback"
        assert [output.finish_reason for output in error.outputs] == ["cancelled"] * prompts
        assert {request.request_id for request in error.trace.requests} == {o.request_id for o in error.outputs}
        assert len(error.trace.rounds) >= 3
    assert llm.num_free_blocks == llm._engine._blocks.num_usable
    assert llm.generate(PROMPTS[1], sampled(1))[0].token_ids == expected


def test_a_failed_round_ends_a_stream_with_its_error(make_llm) -> None:
    llm = make_llm(strategy=Stumbling())
    tokens: list[int] = []
    chunks = llm.stream([7, 7, 1], LONG)
    with pytest.raises(ProposerError, match="out of ideas") as caught:
        tokens.extend(token for chunk in chunks for token in chunk.token_ids)
    assert caught.value.outputs[0].token_ids[: len(tokens)] == tokens
    assert caught.value.trace.rounds


def ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.mark.quick("async jit")
@pytest.mark.parametrize("name", ["autoregressive", "async jit"])
def test_ctrl_c_ends_the_requests_of_the_caller_who_waits_and_no_others(make_llm, hold, name: str) -> None:
    llm = make_llm(**STRATEGIES[name])
    whole = llm.generate(PROMPTS[1], sampled(1, 80))[0].token_ids
    got: list[Any] = []
    hold(after=10)

    def other() -> None:
        for number, chunk in enumerate(llm.stream(PROMPTS[1], sampled(1, 80))):
            got.extend(chunk.token_ids)
            if number == 2:
                wait_until(lambda: under_way(llm) == 3)
                ctrl_c()
                wait_until(lambda: under_way(llm) == 1)
                hold.release()

    thread = threading.Thread(target=other)
    thread.start()
    outputs = llm.generate(PROMPTS[2:4], LONG)
    thread.join(60)
    assert [output.finish_reason for output in outputs] == ["cancelled"] * 2
    assert got == whole


def test_ctrl_c_while_a_stream_is_waited_for_ends_it(make_llm, hold) -> None:
    llm = make_llm(strategy="autoregressive")
    hold()
    stream = llm.stream(PROMPTS[0], LONG)
    next(stream)
    service, answered = llm._service, llm._service.next_event
    service.next_event = lambda call: ctrl_c() or answered(call)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert llm.num_free_blocks == llm._engine._blocks.num_usable


def test_the_engine_does_not_wait_for_a_slow_reader(make_llm) -> None:
    llm = make_llm(**STRATEGIES["sync k=4"])
    whole = llm.generate(PROMPTS[0], sampled(0, 60))[0]
    stream = llm.stream(PROMPTS[0], sampled(0, 60))
    text = next(stream).text
    wait_until(lambda: llm.num_free_blocks == llm._engine._blocks.num_usable)  # it ends, though nobody reads on
    assert text + "".join(chunk.text for chunk in stream) == whole.text


@pytest.mark.quick("async jit")
@pytest.mark.parametrize("name", ["autoregressive", "sync k=4", "async jit", "tree fixed"])
def test_leaving_a_stream_frees_its_blocks_though_others_go_on(make_llm, hold, name: str) -> None:
    llm = make_llm(**STRATEGIES[name], prefix_reuse=False)
    whole = llm.generate(PROMPTS[1], sampled(1, 40))[0].token_ids
    staying = llm.stream(PROMPTS[1], sampled(1, 40))
    tokens = list(next(staying).token_ids)
    for _ in range(3):
        hold()
        leaving = llm.stream(PROMPTS[4], LONG)
        next(leaving)
        with_both = llm.num_free_blocks
        leaving.close()
        assert llm.num_free_blocks > with_both
    hold.release()
    assert tokens + [token for chunk in staying for token in chunk.token_ids] == whole


def kept_rounds() -> int:
    gc.collect()
    return sum(type(thing) is KeptRound for thing in gc.get_objects())


def test_streams_keep_the_rounds_of_the_last_one_alone(make_llm) -> None:
    llm = make_llm(**STRATEGIES["async jit"])
    before, kept = kept_rounds(), []
    for _ in range(3):
        for _ in range(2):
            list(llm.stream(PROMPTS[0], sampled(0)))
        kept.append(kept_rounds() - before)
    assert kept[0] > 0 and len(set(kept)) == 1
    trace = llm.take_trace()
    assert len(trace.rounds) == kept[0] and len(trace.requests) == 1
    assert sum(row.num_emitted for each in trace.rounds for row in each.sequences) == 24
    assert llm.take_trace().rounds == [] and kept_rounds() == before


def test_the_trace_of_a_stream_grows_with_its_chunks(make_llm) -> None:
    llm = make_llm(**STRATEGIES["sync k=4"])
    seen = 0
    for chunk in llm.stream(PROMPTS[0], sampled(0)):
        later = llm.trace_so_far(seen)
        assert chunk.finish_reason or later.rounds or seen
        assert [each.index for each in later.rounds] == list(range(seen, seen + len(later.rounds)))
        seen += len(later.rounds)
    assert seen == len(llm.trace_so_far().rounds) == len(llm.take_trace().rounds)


def test_a_run_within_a_stream_has_a_trace_of_its_own(make_llm) -> None:
    llm = make_llm(**STRATEGIES["sync k=4"])
    for number, _ in enumerate(llm.stream(PROMPTS[0], sampled(0))):
        if number == 1:
            assert_is_its_own(llm.run(PROMPTS[1], sampled(1)))
    trace = llm.take_trace()
    assert len(trace.requests) == 1 and trace.requests[0].prompt == PROMPTS[0]
    assert sum(row.num_emitted for each in trace.rounds for row in each.sequences) == 24


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ssd_lab-engine"]


def made(target: Any, draft: Any, **fields: Any) -> LLM:
    return LLM(target, draft, **{"strategy": "autoregressive", "progress": False, "threads": 1, **fields})


def test_closing_ends_the_thread_and_whatever_goes_on(
    target: Any, draft: Any, monkeypatch: pytest.MonkeyPatch, hold: Any
) -> None:
    before = len(engine_threads())
    llm = made(target, draft)
    hold(after=60)
    stream = llm.stream(PROMPTS[0], LONG)
    next(stream)
    begin, begun = llm._service.begin, threading.Event()
    monkeypatch.setattr(llm._service, "begin", lambda call: (begin(call), begun.set()))
    waiting = threading.Thread(target=lambda: outputs.extend(llm.generate(PROMPTS[1:3], LONG)))
    outputs: list[Any] = []
    waiting.start()
    assert begun.wait(60)
    next(stream)
    llm.close()
    llm.close()
    waiting.join(60)
    assert len(engine_threads()) == before
    assert list(stream)[-1].finish_reason == "cancelled"
    assert {output.finish_reason for output in outputs} <= {"cancelled"}
    with pytest.raises(ConfigError, match="closed: make a new one"):
        llm.generate("Hi")
    with pytest.raises(ConfigError, match="closed: make a new one"):
        next(llm.stream("Hi"))


@pytest.mark.quick("fields0")
@pytest.mark.parametrize("fields", [{}, {**STRATEGIES["async jit"], "draft_link": "process"}])
def test_an_llm_that_everybody_forgot_ends_its_thread_and_its_draft(target: Any, draft: Any, fields: dict) -> None:
    before = len(engine_threads())
    llm = made(target, draft, **fields)
    llm.generate(PROMPTS[0], sampled(0))
    left = llm.stream(PROMPTS[0], LONG)
    next(left)
    process = llm._engine.proposer.link.process_id if fields else None
    del llm, left
    gc.collect()
    wait_until(lambda: len(engine_threads()) == before)
    if process is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_an_engine_whose_thread_is_gone_is_an_error_and_no_wait(target: Any, draft: Any, hold: Any) -> None:
    llm = made(target, draft)
    hold()
    stream = llm.stream(PROMPTS[0], LONG)
    next(stream)

    def fault() -> None:
        raise ZeroDivisionError("a fault of the loop")

    llm._service._loop.inbox.put(fault)
    with pytest.raises(ZeroDivisionError):
        list(stream)
    with pytest.raises(EngineStoppedError, match="a fault of the loop"):
        llm.generate("Hi")
    with pytest.raises(ZeroDivisionError):
        llm.close()
    llm.close()


class Nesting(SequenceStrategy):
    """Asks the LLM that runs it."""

    strategy_name: ClassVar[str] = "nesting"
    llm: Any = None

    @property
    def lookahead(self) -> int:
        return 1

    def draft(self, context: Context) -> Sequence[int]:
        NESTED[0].generate("Hi")
        return []


NESTED: list[LLM] = []


def test_a_strategy_cannot_wait_for_the_engine_that_runs_it(make_llm) -> None:
    NESTED[:] = [make_llm(strategy=Nesting())]
    with pytest.raises(ConfigError, match="from within its own round"):
        NESTED[0].generate("Hi")


def in_a_fork(work: Callable[[], Any]) -> str:
    """What it raises in a forked child, in words."""
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


@pytest.mark.full
@pytest.mark.grid(most=2)
@pytest.mark.parametrize("link", ["inline", "process"])
def test_a_forked_child_gets_an_error_and_its_parent_goes_on(make_llm, link: str) -> None:
    llm = make_llm(**STRATEGIES["async jit"], draft_link=link)
    alone = llm.generate(PROMPTS[0], sampled(0))[0].token_ids
    stream = llm.stream(PROMPTS[0], sampled(0))
    tokens = list(next(stream).token_ids)
    works = [
        lambda: llm.generate("Hi"),
        lambda: list(llm.stream("Hi")),
        lambda: list(stream),
        lambda: llm.score([1, 2]),
        llm.take_trace,
    ]
    for work in works:
        said = in_a_fork(work)
        assert said.startswith(ForkedProcessError.__name__) and "spawn" in said and str(os.getpid()) in said
    assert in_a_fork(llm.close) == "nothing"
    assert tokens + [token for chunk in stream for token in chunk.token_ids] == alone
    result = llm.run(PROMPTS[0], sampled(0))
    assert result.outputs[0].token_ids == alone and "degraded" not in result.trace.meta
