// How much of the draft is kept: by position, by prompt, over time; observed beside expected.

import { PERCENT_TICKS, chart, line, titled, wholeTicks } from "./charts.js";
import { decimal, h, percent, replace, s, section } from "./dom.js";

const WINDOW = 10; // rounds of the moving mean

export function acceptanceView(app) {
  const body = h("div", { class: "ssd-charts" });
  const element = section("acceptance", "Acceptance", null, body);
  let shown = null;
  let dots = [];

  function build() {
    const { run } = app;
    const { by_position: positions, by_request: requests, rate } = run.acceptance;
    if (!positions.length) {
      replace(body, h("p", { class: "ssd-help" }, "No draft tokens were tested."));
      dots = [];
      return;
    }
    replace(body, byPosition(positions, rate), overTime(), requests.length > 1 ? byRequest(requests) : null, table(positions));
    dots = [...body.querySelectorAll("[data-step]")];
  }

  function overTime() {
    const steps = app.steps;
    const most = Math.max(1, ...steps.map((step) => step.draft_tokens.length));
    const means = steps.map((_, i) => {
      const recent = steps.slice(Math.max(0, i - WINDOW + 1), i + 1);
      return [i + 1, recent.reduce((sum, step) => sum + step.num_accepted, 0) / recent.length];
    });
    const axes = {
      x: "round", y: "tokens accepted", xMin: 0.5, xMax: Math.max(2, steps.length + 0.5), yMax: most,
      xTicks: wholeTicks(steps.length).filter(([value]) => value > 0), yTicks: wholeTicks(most, 5),
    };
    const figure = h("figure", {}, chart(
      `Accepted tokens in each of ${steps.length} rounds`, axes,
      steps.map((step, i) => (px, py) => titled(
        s("circle", { class: "ssd-dot", cx: px(i + 1), cy: py(step.num_accepted), r: 3.2, "data-step": i }),
        `round ${i + 1}: ${step.num_accepted} accepted`)),
      line(means, "ssd-mean"),
    ), h("figcaption", {}, `each round (dots), mean of the last ${WINDOW} (line)`));
    figure.addEventListener("click", (event) => {
      const step = event.target.closest("[data-step]")?.dataset.step;
      if (step !== undefined) app.select({ step: Number(step) });
    });
    return figure;
  }

  return {
    element,
    get empty() {
      return !app.run?.acceptance.by_position.length;
    },
    render(reason) {
      if (reason === "hover" || !app.run) return;
      const now = `${app.selected.run}/${app.selected.request}`;
      if (reason === "data" || shown !== now) build();
      shown = now;
      for (const dot of dots) dot.classList.toggle("current", Number(dot.dataset.step) === app.selected.step);
    },
  };
}

function byPosition(positions, rate) {
  const sampled = positions.some((row) => row.expected !== null);
  const axes = {
    x: "position in the draft", y: "kept, %", xMin: 0.4, xMax: positions.length + 0.6, yMax: 1,
    xTicks: positions.map((_, i) => [i + 1, String(i + 1)]), yTicks: PERCENT_TICKS,
  };
  return h("figure", {}, chart(
    `Acceptance by position: ${positions.map((row, i) => `${i + 1}: ${percent(row.observed)}`).join(", ")}`, axes,
    positions.map((row, i) => (px, py) => titled(
      s("rect", { class: "ssd-observed", x: px(i + 0.7), width: px(1.3) - px(0.7), y: py(row.observed), height: py(0) - py(row.observed) }),
      `position ${i + 1}: ${row.accepted} of ${row.tested} kept`)),
    positions.map((row, i) => (px, py) => {
      const y = py(row.expected ?? rate);
      return titled(s("line", { class: "ssd-expected", x1: px(i + 0.6), x2: px(i + 1.4), y1: y, y2: y }),
        `expected ${percent(row.expected ?? rate, 1)}`);
    }),
  ), h("figcaption", {}, sampled
    ? "observed (bars); expected, mean of min(1, p/q) over the same tests (dashes)"
    : "observed (bars); the overall rate, what a constant chance would give (dashes)"));
}

function byRequest(requests) {
  const most = Math.max(...requests.map((row) => row.tokens_per_round));
  return h("figure", {}, h("div", { class: "ssd-bybar", role: "list", "aria-label": "Tokens per round by request" }, requests.slice(0, 24).map((row) =>
    h("div", { role: "listitem" }, h("span", {}, `request ${row.request}`),
      h("span", { class: "ssd-cellbar", style: `--width:${((100 * row.tokens_per_round) / most).toFixed(1)}%` }, decimal(row.tokens_per_round))))),
  h("figcaption", {}, "tokens per round, by request"));
}

function table(positions) {
  return h("details", {}, h("summary", {}, "Numbers"), h("table", { class: "ssd-table", "data-table": "acceptance", "aria-label": "Acceptance by position" },
    h("thead", {}, h("tr", {}, ["position", "tested", "kept", "observed", "expected"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, positions.map((row, i) => h("tr", {}, [i + 1, row.tested, row.accepted, percent(row.observed, 1), percent(row.expected, 1)].map((cell) => h("td", {}, cell)))))));
}
