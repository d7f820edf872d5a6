// "Try it in this page": a button that loads the models, then the playground of the notebooks, with the page in the place
// of its kernel.

import { obstacle, PageEngine } from "./engine.js";
import { checked } from "./order.js";
import { toLines } from "./trace.js";
import { runView, viewData } from "./view_model.js";

const SHARE = 0.2; // of the time, at most, goes into drawing while a run goes on
const MEGABYTE = 1e6;

// place: an element that holds a button, a progress bar and a line for words. front: the front end's `render`.
export function mount(place, front) {
  const part = (name) => place.querySelector(`[data-try="${name}"]`);
  const [button, bar, words, stage, keep] = ["load", "bar", "words", "stage", "keep"].map(part);
  const settings = JSON.parse(part("settings").textContent);
  const engine = new PageEngine(new URL(settings.folder, document.baseURI));
  let trace = null;

  async function load() {
    const reason = obstacle();
    if (reason) return tell(reason, true);
    button.disabled = true;
    bar.hidden = false;
    tell("loading …");
    try {
      await engine.load((done, all) => {
        bar.value = done / settings.bytes;
        tell(`${(done / MEGABYTE).toFixed(0)} of ${(settings.bytes / MEGABYTE).toFixed(0)} MB`);
      });
    } catch (error) {
      bar.hidden = true;
      button.disabled = false;
      return tell(`${error.message}.`, true);
    }
    button.hidden = bar.hidden = true;
    tell("Both models are here. What they write is often wrong, with or without speculation: what is promised is the target's own text.");
    (await front()).render({ model, el: stage });
    stage.querySelector("textarea").focus({ preventScroll: true });
    place.dataset.ready = "true";
  }

  function tell(text, wrong = false) {
    words.textContent = text;
    words.classList.toggle("wrong", wrong);
  }

  // What a notebook's model is to a widget.
  let show = () => {};
  const model = {
    get: (name) => ({ kind: "playground", strategies: settings.strategies, defaults: settings.defaults })[name],
    set() {},
    save_changes() {},
    on: (event, listener) => { if (event === "msg:custom") show = listener; },
    off: () => { show = () => {}; },
    send(message) {
      if (message.do === "stop") engine.stop();
      else if (message.do === "run") run(message);
      queueMicrotask(() => show({})); // it was heard
    },
  };

  async function run(message) {
    const start = performance.now();
    let next = 0;
    try {
      const order = checked(message, settings.strategies);
      trace = null;
      keep.hidden = true;
      trace = await engine.run(order, (growing, text) => {
        const at = performance.now();
        if (at < next) return;
        show({ text, part: runView(order.strategy, growing), running: true, status: "running …" });
        next = performance.now() + (performance.now() - at) / SHARE;
      });
      const [request] = trace.requests;
      const tokens = request.token_ids.length;
      const seconds = (performance.now() - start) / 1000;
      show({ text: request.text, data: viewData(order.strategy, trace) });
      const word = request.finish_reason === "cancelled" ? "stopped" : "done";
      show({ running: false, status: `${word}: ${tokens} tokens in ${trace.rounds.length} rounds, ${(tokens / seconds).toFixed(0)} tokens/s${leadOf(trace)}` });
      keep.hidden = false;
    } catch (error) {
      show({ error: error.message, running: false, status: "failed" });
    }
  }

  button.addEventListener("click", load);
  keep.addEventListener("click", () => save(trace));
  return { engine };
}

// Where two tokens are equally likely but for the last bits, another order of sums may choose the other.
function leadOf({ meta }) {
  return meta.smallest_lead === undefined ? "" : `; the closest choice was won by ${meta.smallest_lead.toPrecision(2)} in the logits`;
}

function save(trace) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([toLines(trace)], { type: "application/jsonl" }));
  link.download = `${trace.meta.strategy.name}.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
