// Sliders that score the recorded rounds again with another lookahead, schedule, temperature or Saguaro factor.

import { decimal, h, percent, replace, slider } from "./dom.js";
import { expectUnder, geometric, rescore } from "./rescore.js";

export function counterfactual(app) {
  const chosen = { lookahead: 1, kind: "uniform", width: 3, budget: 12, saguaro: 1, temperature: 0 };
  const result = h("div", { "data-cache": "counterfactual", "aria-live": "polite" });
  const change = (name) => (value) => {
    chosen[name] = value;
    touched = true;
    score();
  };
  const lookahead = slider("lookahead k", { min: 1, max: 1, value: 1, change: change("lookahead") });
  const width = slider("fan-out F", { min: 1, max: 16, value: 3, change: change("width") });
  const budget = slider("budget B, branches", { min: 1, max: 128, value: 12, change: change("budget") });
  const saguaro = slider("Saguaro factor C", { min: 0, max: 1, step: 0.05, value: 1, show: (v) => v.toFixed(2), change: change("saguaro") });
  const temperature = slider("temperature", { min: 0.1, max: 2, step: 0.1, value: 1, show: (v) => v.toFixed(1), change: change("temperature") });
  const kind = h("select", { "aria-label": "schedule", onchange: () => change("kind")(kind.value) },
    h("option", { value: "uniform" }, "uniform"), h("option", { value: "geometric" }, "geometric"));
  const help = h("p", { class: "ssd-help" });
  const controls = h("div", { class: "ssd-sliders" });
  const element = h("details", { class: "ssd-whatif" }, h("summary", {}, "What if? The recorded rounds under other settings"), controls, result, help);
  element.addEventListener("toggle", () => api.render("open"));
  let cached = false;
  let touched = false;
  let run = null;
  let shown = null;
  let steps = [];
  let recorded = null;

  function setUp() {
    const { run } = app;
    steps = run.requests.flatMap((request) => request.steps);
    const most = Math.max(1, ...steps.map((step) => step.draft_tokens.length));
    const sampled = run.requests.some((request) => request.temperature > 0);
    const trees = steps.some((step) => step.tree?.verified); // whose siblings have a law of their own
    const distributions = !trees && steps.some((step) => step.alternatives);
    cached = app.run.cache.lookups > 0;
    const schedule = steps.find((step) => step.fan_out)?.fan_out;
    recorded = {
      temperature: sampled ? Math.max(...run.requests.map((request) => request.temperature)) : 0,
      saguaro: run.strategy.saguaro_c ?? 1,
    };
    if (!touched) Object.assign(chosen, {
      lookahead: most, width: schedule ? Math.max(1, Math.round(schedule.reduce((a, b) => a + b, 0) / schedule.length)) : 3,
      budget: schedule ? schedule.reduce((a, b) => a + b, 0) : 3 * (most + 1), ...recorded,
    });
    lookahead.limits(1, most, `at most ${most}: no more were drafted, and what the target would say of others is not recorded`);
    lookahead.set(chosen.lookahead);
    width.set(chosen.width);
    budget.set(chosen.budget);
    saguaro.set(chosen.saguaro);
    temperature.set(chosen.temperature);
    kind.value = chosen.kind;
    replace(controls, lookahead.element, cached ? [h("label", { class: "ssd-slider" }, h("span", {}, "schedule"), kind), width.element, budget.element] : null,
      sampled && distributions ? [cached ? saguaro.element : null, temperature.element].filter(Boolean) : null);
    const ranked = steps.some((step) => step.recovery_rank !== undefined);
    help.textContent = !cached
      ? "Each recorded round is scored by itself; rounds that would have followed a changed one were never run."
      : ranked
      ? "Each recorded round is scored by itself; rounds that would have followed a changed one were never run."
        + (sampled && distributions ? " C and temperature use the recorded distributions of the likeliest tokens: expected values." : "")
      : "The ranks of the recovery tokens were not recorded, so hits under other schedules are not known.";
  }

  function score() {
    const fit = app.run.cache.power_law;
    const rate = app.run.acceptance.rate ?? 0.5;
    const fanOut = chosen.kind === "uniform"
      ? Array(chosen.lookahead + 1).fill(chosen.width)
      : geometric(chosen.lookahead, chosen.budget, rate, fit ? Math.max(0.1, fit[1]) : 1);
    width.element.hidden = chosen.kind !== "uniform";
    budget.element.hidden = chosen.kind === "uniform";
    const changed = chosen.saguaro !== recorded.saguaro || chosen.temperature !== recorded.temperature;
    const now = changed
      ? expectUnder(steps, fanOut, { saguaro: chosen.saguaro, power: recorded.temperature / chosen.temperature })
      : rescore(steps, fanOut);
    const then = {
      rounds: steps.length, accepted: steps.reduce((sum, step) => sum + step.num_accepted, 0),
      lookups: app.run.cache.lookups, hits: app.run.cache.hits,
    };
    const lookups = changed ? now.known : now.lookups;
    replace(result, h("table", { class: "ssd-table", "data-table": "counterfactual", "aria-label": "As recorded, and under these settings" },
      h("thead", {}, h("tr", {}, ["rounds", cached ? "hit rate" : null, "tokens per round", cached ? "branches" : null].filter((name) => name !== null).map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {},
        row("recorded", then.lookups ? then.hits / then.lookups : null, then.accepted / then.rounds + 1, null),
        row(changed ? "expected" : "what if", lookups ? now.hits / lookups : null, now.rounds ? now.accepted / now.rounds + 1 : null, fanOut))));
  }

  function row(name, hitRate, tokens, fanOut) {
    const branches = fanOut ? `${fanOut.reduce((a, b) => a + b, 0)}: ${fanOut.join(" ")}` : "–";
    return h("tr", { "data-row": name }, h("th", { scope: "row" }, name), cached ? h("td", {}, percent(hitRate, 1)) : null, h("td", {}, decimal(tokens)), cached ? h("td", {}, branches) : null);
  }

  const api = {
    element,
    render(reason) {
      const now = app.selected.run;
      if (reason !== "data" && shown === now) return;
      if (run !== `${now} ${app.run?.name}`) touched = false; // a run that grows keeps what was set
      run = `${now} ${app.run?.name}`;
      shown = null;
      if (!element.open || !app.run.requests.length) return; // scored when it is looked at
      shown = now;
      setUp();
      score();
    },
  };
  return api;
}
