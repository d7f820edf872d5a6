// Choose a strategy, its knobs and a prompt, and watch it run: the views fill as rounds arrive.

import { decimal, h, percent, plural, replace, section } from "./dom.js";
import { schemaForm } from "./form.js";
import { keepKeys } from "./keys.js";
import { ALL, mount } from "./main.js";
import { followTheme } from "./theme.js";

const LAST = { step: Number.MAX_SAFE_INTEGER, place: null };

const FIRST = ["k", "f"]; // of a strategy's fields: the others fold
const KEPT_RUNS = 6;
const PATIENCE_MS = 4000;
const GONE = "The kernel is gone: start one and run this cell again.";
const SILENT = "no answer yet: the kernel is busy, or it was restarted; then run this cell again";

// strategies: {name: JSON schema}; run(order), stop() and ping() tell the kernel, and throw where there is none. Returns
// what the kernel's messages call.
export function mountPlayground(root, { strategies, defaults, run, stop, ping }) {
  root.classList.add("ssd-lab");
  const release = keepKeys(root);
  const unfollow = followTheme(root);
  let form = null;
  let views = null;
  let started = 0;
  let fresh = true; // nothing of this run was shown yet
  let steps = 0; // shown at the last drawing
  let due = null;
  let silence = null; // set while an answer is awaited
  let watch = null;
  let drawMs = 0;
  let ordered = null; // what the run that goes on was asked for
  const earlier = [];
  const knobs = h("div", {});
  const names = Object.keys(strategies);
  const strategy = h("select", { "aria-label": "strategy", name: "strategy", onchange: () => choose() }, names.map((name) => h("option", { value: name }, name)));
  strategy.value = defaults.strategy;
  const prompt = h("textarea", { "aria-label": "prompt", name: "prompt", rows: 2 });
  prompt.value = defaults.prompt;
  const number = (name, label, value, limits) => h("label", {}, h("span", {}, label), h("input", { type: "number", name, "aria-label": label, value, ...limits }));
  const tokens = number("max_tokens", "tokens at most", defaults.max_tokens, { min: 1, max: 4096, step: 1 });
  const temperature = number("temperature", "temperature", defaults.temperature, { min: 0, max: 10, step: 0.1 });
  const seed = number("seed", "seed", defaults.seed, { step: 1 });
  const go = h("button", { type: "button", class: "ssd-primary", "data-do": "run", onclick: () => order() }, "Run");
  const halt = h("button", { type: "button", "data-do": "stop", disabled: true, onclick: () => tell(stop) }, "Stop");
  const status = h("span", { role: "status", "aria-live": "polite", class: "ssd-where", "data-playground": "status" });
  const error = h("p", { role: "alert", class: "ssd-warning", hidden: true });
  const text = h("div", { class: "ssd-stream", "aria-label": "Generated text", "data-playground": "text" });
  const stale = h("p", { class: "ssd-help", hidden: true }, "The run below is the previous one.");
  const table = h("div", { class: "ssd-scroll" });
  const stage = h("div", {});

  const read = (field) => { const input = field.querySelector("input"); return input.value === "" ? null : Number(input.value); };
  function order() {
    error.hidden = true;
    stale.hidden = views === null;
    started = performance.now();
    ordered = { name: strategy.value, fields: form.values(), temperature: read(temperature) };
    busy(true, "starting …");
    tell(() => run({
      strategy: ordered.name, fields: ordered.fields, prompt: prompt.value,
      max_tokens: read(tokens), temperature: read(temperature), seed: read(seed),
    }));
    text.textContent = "";
    text.removeAttribute("data-first-ms");
    fresh = true;
  }

  function choose() {
    form = schemaForm(strategies[strategy.value], { first: FIRST, given: form?.values() });
    const description = strategies[strategy.value].description?.split("\n\n")[0];
    replace(knobs, description ? h("p", { class: "ssd-help" }, description) : null, form.element);
  }

  // Whether the kernel hears it is known by its answer, or by an error where there is no kernel any more.
  function tell(send) {
    try {
      send();
      silence ??= setTimeout(() => {
        status.textContent = SILENT;
      }, PATIENCE_MS);
    } catch {
      fail(GONE);
      busy(false, "");
    }
  }

  function fail(words) {
    error.textContent = words;
    error.hidden = false;
  }

  function busy(now, words) {
    clearInterval(watch);
    if (now) watch = setInterval(() => tell(ping), PATIENCE_MS);
    else clearTimeout(silence);
    if (!now) silence = null;
    go.disabled = now;
    halt.disabled = !now;
    status.textContent = words;
  }

  function whole(data) {
    clearTimeout(due);
    due = null;
    const follow = fresh || views === null || atTheEnd();
    if (views === null) {
      const holder = h("div", {});
      stage.append(holder);
      views = mount(holder, { data, views: ["told", ...ALL], selection: LAST });
    } else views.replaceData(data, follow ? LAST : {});
    fresh = false;
    stale.hidden = true;
    steps = views.app.steps.length;
  }

  // Parts are put in at once and drawn together, no more often than leaves most of the time for what else goes on.
  function add(part) {
    if (fresh || views === null) {
      if (part.from_round === 0) whole({ runs: [part] });
    } else if (views.extend(part)) due ??= setTimeout(redraw, Math.max(16, 2 * drawMs));
  }

  function redraw() {
    due = null;
    const start = performance.now();
    views.redraw(atTheEnd() ? LAST : {});
    steps = views.app.steps.length;
    drawMs = performance.now() - start;
  }

  // The last runs side by side, newest first.
  function note() {
    const { acceptance, cache, requests } = views.app.run;
    const rounds = requests.flatMap((request) => request.steps);
    if (!rounds.length) return;
    const own = Object.entries(ordered?.fields ?? {}).map(([name, value]) => `${name}=${typeof value === "object" ? value.kind ?? "…" : value}`);
    const tokens = rounds.reduce((sum, step) => sum + step.num_emitted, 0);
    earlier.unshift([
      [ordered?.name ?? views.app.run.name, ...own, `T=${ordered?.temperature ?? defaults.temperature}`].join(" "), plural(tokens, "token"), decimal(tokens / rounds.length),
      percent(acceptance.rate), cache.lookups ? percent(cache.hits / cache.lookups) : "–",
    ]);
    earlier.splice(KEPT_RUNS);
    replace(table, h("table", { class: "ssd-table", "data-table": "runs" }, h("caption", {}, "runs so far, the newest first"),
      h("thead", {}, h("tr", {}, ["run", "text", "tokens for each pass of the target", "accepted", "cache hits"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, earlier.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))))));
  }

  // whoever looks back at an earlier round is left there
  const atTheEnd = () => views.app.selected.step >= steps - 1;

  replace(root, section("playground", "Playground", null,
    h("label", { class: "ssd-wide" }, h("span", {}, "prompt"), prompt),
    h("div", { class: "ssd-form" }, h("label", {}, h("span", {}, "strategy"), strategy), temperature, tokens, seed), knobs,
    h("div", { class: "ssd-buttons" }, go, halt, status), error, text, table, stale), stage);
  choose();

  return {
    // {text, status, running, error, data}: whatever of it is new
    show(message) {
      clearTimeout(silence);
      silence = null;
      if (message.text !== undefined) {
        text.textContent = message.text;
        if (message.text && !text.dataset.firstMs) text.dataset.firstMs = (performance.now() - started).toFixed(0);
      }
      if (message.error) {
        fail(message.error);
      }
      if (message.running !== undefined) busy(message.running, message.status ?? "");
      if (message.data) {
        whole(message.data);
        note();
      }
      else if (message.part) add(message.part);
    },
    destroy() {
      for (const timer of [due, silence, watch]) clearTimeout(timer);
      unfollow();
      release();
      views?.destroy();
      root.replaceChildren();
    },
  };
}
