"""The playground: choose a strategy, its knobs and a prompt, and watch it run; through the public interface alone."""

from __future__ import annotations

import threading
import time
import warnings
from dataclasses import replace
from typing import Any

import ssd_lab
from ssd_lab.common.validation import validated
from ssd_lab.errors import ConfigError, SsdLabError
from ssd_lab.trace import RequestRecord, Trace
from ssd_lab.widgets.bundle import style, widget_module
from ssd_lab.widgets.front_end import anywidget, traitlets
from ssd_lab.widgets.static_html import summary_table
from ssd_lab.widgets.view_model import view_data
from ssd_lab.widgets.view_model.live import LiveRun

PROMPT = "A train travels at 60 miles per hour for 4 hours. How far does it go?"
PAUSE_S = 0.05  # least time between two messages about a run
CLOSE_S = 30.0  # longest wait for a run that was stopped
BEFORE_S = 600.0  # longest wait for the run before, which may be loading its models
SHARE = 0.2  # of the time, at most, may go into making them
DETAILS = 8  # tokens recorded at each place, so that a rejected one shows what the target wanted instead


class Playground(anywidget.AnyWidget):
    """Runs strategies from a form. Each is one `LLM`, kept while its fields stay the same.

    target, draft, and further fields of `LLM`: as there (draft_link: `thread` if not given, which starts at once).
    strategy, prompt, max_tokens, temperature, seed: what the form begins with. warm: load the models now, in the
    background, so that the first run need not wait for them.

    After a run `trace` holds its rounds and `text` its text; `error` is what went wrong, in words.
    """

    _esm = widget_module()
    _css = style()

    kind = traitlets.Unicode("playground").tag(sync=True)
    strategies = traitlets.Dict().tag(sync=True)
    defaults = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        *,
        target: Any = None,
        draft: Any = None,
        strategy: str = "async_tree",
        prompt: str = PROMPT,
        max_tokens: int = 96,
        temperature: float = 0.0,
        seed: int = 0,
        warm: bool = True,
        **fields: Any,
    ) -> None:
        self.text = ""
        self.error: str | None = None
        self.trace: Trace | None = None
        self._fields = {"draft_link": "thread", "progress": False, "record_details": DETAILS, **fields}
        self._models = (target, draft)
        self._llm: tuple[Any, ssd_lab.LLM] | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._warming = self._closing = False
        known = ssd_lab.strategies()  # from here on it may be given up, and is closed then
        if strategy not in known:
            raise ConfigError(f"unknown strategy {strategy!r}; known are {', '.join(known)}")
        super().__init__(
            strategies={name: config.model_json_schema() for name, config in known.items()},
            defaults={
                "strategy": strategy,
                "prompt": prompt,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "seed": seed,
            },
        )
        self.on_msg(self._on_message)
        if warm:
            self._start(self._warm, strategy)

    @property
    def running(self) -> bool:
        """Is a run going on?"""
        return self._thread is not None and self._thread.is_alive()

    def run(
        self,
        prompt: str | None = None,
        *,
        strategy: str | None = None,
        fields: dict[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> None:
        """Start a run in the background, as the button does; None takes what the form began with.

        Raises ConfigError while another one goes on.
        """
        given = {
            "prompt": prompt,
            "strategy": strategy,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        order = {name: self.defaults[name] if value is None else value for name, value in given.items()}
        if self.running and not self._warming:
            raise ConfigError("a run is going on: stop it first, or wait for its end")
        self._start(self._run, {**order, "fields": fields or {}})

    def stop(self) -> None:
        """End the run; what it has written stays."""
        self._stopped.set()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until the run is over."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def close(self) -> None:
        """End the run and free the models."""
        self._closing = True  # a run that goes on frees them itself
        self.stop()
        self.wait(CLOSE_S)
        if self.running:
            warnings.warn(
                f"the playground's run did not end within {CLOSE_S:g} s: its models are freed when it does",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            self._free()
        super().close()

    def _free(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            llm[1].close()

    def _start(self, work: Any, argument: Any) -> None:
        before = self._thread

        def one_after_the_other() -> None:
            if before is not None:
                before.join(BEFORE_S)
            if before is not None and before.is_alive():
                self._fail(ConfigError(f"the run before did not end within {BEFORE_S:g} s: make a new playground"))
                return
            try:
                work(argument)
            finally:
                if self._closing:
                    self._free()

        self._stopped.clear()
        self._warming = work == self._warm
        self._thread = threading.Thread(target=one_after_the_other, name="ssd-lab playground", daemon=True)
        self._thread.start()

    def _on_message(self, _: Any, message: dict[str, Any], __: Any) -> None:
        if message.get("do") == "stop":
            self.stop()
        elif message.get("do") == "ping":
            self.send({})
        elif message.get("do") == "run":
            order = {name: message.get(name) for name in ("prompt", "strategy", "max_tokens", "temperature", "seed")}
            try:
                self.run(**order, fields=message.get("fields"))
                self.send({})  # it was heard
            except SsdLabError as error:
                self.send({"error": str(error)})

    def _warm(self, strategy: str) -> None:
        try:
            self._llm_for(strategy, {})
        except SsdLabError as error:
            self._fail(error)

    def _run(self, order: dict[str, Any]) -> None:
        self.text, self.error, self.trace = "", None, None
        try:
            params = _params(order)
            llm = self._llm_for(order["strategy"], order["fields"])
            self._stream(llm, order["prompt"], params)
        except SsdLabError as error:
            self._fail(error)
        except Exception as error:  # a thread has nobody above it: what is not said here is said nowhere
            self._fail(error)

    def _stream(self, llm: ssd_lab.LLM, prompt: str, params: ssd_lab.SamplingParams) -> None:
        llm.take_trace()
        name = llm.strategy.strategy_name
        live = LiveRun(name)
        next_s = 0.0  # the first text is told at once
        chunks = llm.stream(prompt, params)
        try:
            for chunk in chunks:
                self.text += chunk.text
                now = time.perf_counter()
                if now >= next_s:
                    part = live.part(_with_request(llm.trace_so_far(live.first_round), prompt, params))
                    self.send({"text": self.text, "part": part, "running": True, "status": "running …"})
                    done = time.perf_counter()
                    next_s = now + max(PAUSE_S, (done - now) / SHARE)
                if self._stopped.is_set():
                    break
        finally:
            chunks.close()
        self.trace = llm.take_trace()
        word = "stopped" if self._stopped.is_set() else "done"
        tokens = sum(len(request.token_ids) for request in self.trace.requests)
        status = f"{word}: {tokens} tokens in {len(self.trace.rounds)} rounds"
        self.send({"text": self.text, "data": view_data({name: self.trace})})
        self.send({"running": False, "status": status})

    def _llm_for(self, strategy: str, fields: dict[str, Any]) -> ssd_lab.LLM:
        key = (strategy, repr(sorted(fields.items())))
        if self._llm is not None and self._llm[0] == key:
            return self._llm[1]
        if self._llm is not None:  # its models are kept, its engine is not
            self._models = (self._llm[1].target, self._llm[1].draft or self._models[1])
            self._llm[1].close()
            self._llm = None
        target, draft = self._models
        llm = ssd_lab.LLM(target, draft, strategy, **{**self._fields, **fields})
        self._llm = (key, llm)
        return llm

    def _fail(self, error: Exception) -> None:
        self.error = str(error) or type(error).__name__
        self.send({"error": self.error, "running": False, "status": "failed"})

    def __repr__(self) -> str:
        if self.trace is None:
            return f"Playground: {', '.join(self.strategies)}; nothing has run yet"
        return f"{self.text}\n\n{summary_table(view_data(self.trace)).to_text()}"


def _params(order: dict[str, Any]) -> ssd_lab.SamplingParams:
    names = ("max_tokens", "temperature", "seed")
    given = {name: order[name] for name in names if order[name] is not None}
    return validated(ssd_lab.SamplingParams, given, name="sampling")


def _with_request(trace: Trace, prompt: str, params: ssd_lab.SamplingParams) -> Trace:
    """The trace with a record of the request that still runs: the views ask it for the prompt and the temperature."""
    if trace.requests or not trace.rounds:
        return trace
    number = trace.rounds[-1].sequences[-1].request_id
    record = RequestRecord(number, prompt, [], [], "", None, 0.0, None, None, params=params.model_dump())
    return replace(trace, requests=[record])
