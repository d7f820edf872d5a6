// Views that the user registered in Python: charts, bars and tables of a run, a section each.

import { chart, line, ticks, titled } from "./charts.js";
import { h, legend, replace, s, section } from "./dom.js";
import { chooseRound } from "./state.js";

const COLOURS = ["--target", "--draft", "--tree", "--bonus", "--rejected", "--fallback"];
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];

export function ownView(app, only) {
  const element = h("div", { class: "ssd-own" });
  let marks = [];
  let shown = null;

  const views = () => (app.run?.own ?? []).filter((view) => !only || view.name === only);

  function build() {
    const drawn = views().map((view) => section("own-view", view.title, view.help, KINDS[view.kind](view, app)));
    replace(element, drawn.length || !only ? drawn : section("own-view", only, null, h("p", { class: "ssd-help" }, "This view has nothing to show for this run.")));
    marks = [...element.querySelectorAll("[data-round]")];
  }

  element.addEventListener("click", (event) => {
    const round = event.target.closest("[data-round]")?.dataset.round;
    if (round !== undefined) chooseRound(app, app.selected.run, Number(round));
  });

  return {
    element,
    get empty() {
      return !views().length;
    },
    render(reason) {
      if (reason === "hover") return;
      if (reason === "data" || shown !== app.selected.run) build();
      shown = app.selected.run;
      for (const mark of marks) mark.classList.toggle("current", Number(mark.dataset.round) === app.step?.round);
    },
  };
}

const KINDS = {
  chart: (view, app) => drawnChart(view, view.x === null ? 1 - app.run.first_round : 0),
  bars: drawnBars,
  table: drawnTable,
  error: (view) => h("p", { class: "ssd-warning" }, `⚠ ${view.text}`),
};

// shift: rounds count from 1 on the screen.
function drawnChart(view, shift) {
  const lines = view.lines.map((each) => ({ ...each, points: each.points.map(([x, y]) => [x + shift, y]).sort((one, other) => one[0] - other[0]) }));
  const points = lines.flatMap((each) => each.points);
  if (!points.length) return h("p", { class: "ssd-help" }, "There are no points to draw.");
  const [xs, ys] = [ticks(points.map(([x]) => x), view.x === null), ticks([0, ...points.map(([, y]) => y)])];
  const x = view.x ?? "round";
  const axes = { x, y: view.y, xMin: xs.min, xMax: xs.max, yMin: ys.min, yMax: ys.max, xTicks: xs.ticks, yTicks: ys.ticks };
  const style = (i) => `--own: var(${COLOURS[i % COLOURS.length]}); stroke-dasharray: ${DASHES[i % DASHES.length] || "none"}`;
  const drawn = lines.map((each, i) => (px, py) => s("g", { style: style(i) },
    line(each.points, "ssd-own-line")(px, py),
    each.points.map(([at, y]) => titled(
      s("circle", { class: "ssd-own-dot", cx: px(at), cy: py(y), r: 3, "data-round": view.x === null ? at - shift : null }),
      `${each.name}, ${x} ${at}: ${y}`))));
  const sign = (i) => s("svg", { viewBox: "0 0 24 8", width: 24, height: 8, style: style(i) }, s("line", { class: "ssd-own-line", x1: 0, x2: 24, y1: 4, y2: 4 }));
  return h("figure", {}, chart(`${view.y} by ${x}: ${lines.map((each) => each.name).join(", ")}`, axes, drawn), legend("Lines", lines.map((each, i) => [sign(i), each.name])));
}

function drawnBars({ bars, unit }) {
  const most = Math.max(...bars.map(([, value]) => value)) || 1;
  return h("div", { class: "ssd-bybar", role: "list" }, bars.map(([name, value]) => h("div", { role: "listitem" },
    h("span", {}, name), h("span", { class: "ssd-cellbar", style: `--width:${((100 * value) / most).toFixed(1)}%` }, `${value} ${unit}`.trim()))));
}

function drawnTable({ columns, rows, sides, notes }) {
  const line = (tag, cells) => h("tr", {}, cells.map((cell, i) => h(tag, { style: `text-align: ${sides[i]}`, scope: tag === "th" ? "col" : null }, cell)));
  return [
    h("div", { class: "ssd-scroll" }, h("table", { class: "ssd-table" }, h("thead", {}, line("th", columns)), h("tbody", {}, rows.map((row) => line("td", row))))),
    notes.map((note) => h("p", { class: "ssd-help" }, note)),
  ];
}
