// When does asynchronous speculation pay? Sliders over the closed form, with the simulator's answer beside it.

import { chart, line } from "./charts.js";
import { explorerSpeeds } from "./closed_form.js";
import { decimal, h, replace, section, slider } from "./dom.js";
import { keepKeys } from "./keys.js";
import { followTheme } from "./theme.js";

const CONTROLS = [
  ["verify_ms", "verification, ms", { min: 1, max: 50, step: 0.5 }],
  ["draft_step_ms", "one draft step, ms", { min: 0.1, max: 10, step: 0.1 }],
  ["branch_ms", "each branch adds to a draft step, ms", { min: 0, max: 0.2, step: 0.005 }],
  ["acceptance", "chance that a draft token is kept", { min: 0, max: 0.99, step: 0.01 }],
  ["hit_rate", "chance that a lookup hits", { min: 0, max: 1, step: 0.01 }],
  ["k", "lookahead k, tokens", { min: 1, max: 16 }],
  ["fan_out", "fan-out F", { min: 1, max: 16 }],
  ["batch", "batch, sequences", { min: 1, max: 64 }],
  ["draft_gpus", "draft GPUs", { min: 1, max: 8 }],
  ["fast_acceptance", "chance for the fast fallback's tokens", { min: 0, max: 0.99, step: 0.01 }],
];
const MOST_K = 16;

export function mountSpeed(root, { settings, onChange = () => {}, simulated = null }) {
  let now = { ...settings };
  let answer = simulated;
  root.classList.add("ssd-lab");
  const release = keepKeys(root);
  const unfollow = followTheme(root);
  const result = h("div", { "aria-live": "polite" });
  const figure = h("div", { class: "ssd-charts" });
  const change = (patch) => {
    now = { ...now, ...patch };
    answer = null;
    draw();
    onChange(now);
  };
  const sliders = CONTROLS.map(([name, label, limits]) =>
    [name, slider(label, { ...limits, value: now[name], change: (value) => change({ [name]: value }) })]);
  const fallback = h("select", { "aria-label": "fallback", onchange: () => change({ fallback: fallback.value }) },
    h("option", { value: "jit" }, "jit: draft now"), h("option", { value: "fast" }, "fast: nearly free"));
  fallback.value = now.fallback;
  replace(root, section("speed", "When does it pay?", "Speed relative to autoregressive decoding, where one step takes as long as one verification.",
    h("div", { class: "ssd-sliders" }, sliders.map(([, control]) => control.element), h("label", { class: "ssd-slider" }, h("span", {}, "fallback on a miss"), fallback)),
    result, figure));

  function draw() {
    const speeds = explorerSpeeds(now);
    const row = (name, formula, simulation) => h("tr", { "data-row": name }, h("th", { scope: "row" }, name),
      h("td", { "data-speed": "formula" }, `${decimal(formula)}×`), h("td", { "data-speed": "simulated" }, simulation === undefined ? "–" : `${decimal(simulation)}×`));
    replace(result, h("table", { class: "ssd-table", "data-table": "speed", "aria-label": "Speed-up over autoregressive decoding" },
      h("thead", {}, h("tr", {}, ["strategy", "closed form", "simulated rounds"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, row("autoregressive", 1, answer ? 1 : undefined), row("synchronous", speeds.sync, answer?.sync), row("asynchronous", speeds.async, answer?.async))),
    h("p", { class: "ssd-help" }, `tokens per round ${decimal(speeds.tokens)}; the tree takes ${decimal(speeds.draftTime)} and the chain ${decimal(speeds.chainTime)} of a verification. `,
      "A larger fan-out also hits more often; here the two are set separately.",
      answer ? "" : " Simulated rounds need a running kernel."));
    const points = (kind) => Array.from({ length: MOST_K }, (_, i) => [i + 1, explorerSpeeds({ ...now, k: i + 1 })[kind]]);
    const [sync, async] = [points("sync"), points("async")];
    const top = Math.max(1.2, ...sync.concat(async).map(([, speed]) => speed));
    const ticks = [0, 1, 2, 3, 4, 5, 6, 8, 10].filter((tick) => tick <= top).map((tick) => [tick, `${tick}×`]);
    replace(figure, h("figure", {}, chart("Speed-up against lookahead", {
      x: "lookahead k, tokens", y: "speed-up", xMin: 0.5, xMax: MOST_K + 0.5, yMax: top,
      xTicks: [1, 4, 8, 12, 16].map((tick) => [tick, String(tick)]), yTicks: ticks,
    }, line(sync, "ssd-sync"), line(async, "ssd-async"), line([[now.k, 0], [now.k, top]], "ssd-marker")),
    h("figcaption", {}, "asynchronous (solid), synchronous (dashes), by the closed form")));
  }

  draw();
  return {
    set(fresh, simulation) {
      now = { ...now, ...fresh };
      answer = simulation ?? null;
      for (const [name, control] of sliders) control.set(now[name]);
      fallback.value = now.fallback;
      draw();
    },
    destroy() {
      unfollow();
      release();
      root.replaceChildren();
    },
  };
}
