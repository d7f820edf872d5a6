// What target and draft did when: a lane each, all runs on one scale, the selected round marked.

import { h, milliseconds, replace, s, section, slider } from "./dom.js";
import { titled } from "./charts.js";
import { panning } from "./panning.js";
import { chooseRound } from "./state.js";

const LEFT = 62;
const LANE = 24;
const HEAD = 20;
const KINDS = {
  verify: "target verifies",
  tree: "draft prepares outcomes",
  draft: "draft guesses, target waits",
  fallback: "miss: draft guesses now",
  wait: "waiting",
  prefill: "prompt",
  preparation: "graphs captured, kernels compiled",
  link: "link",
  keep: "draft moves what was kept",
  overhead: "overhead",
  other: "other",
};
const KEYS = "Keys: ← → move, + − zoom, Home and End, Esc back to the selected round.";
const ZOOMS = [1, 2, 4, 8, 16, 32, 64, 128, 256];

export function timelineView(app, wanted = "measured") {
  let clock = wanted;
  let zoom = 0;
  let chosen = false; // has somebody set the zoom?
  let panned = null; // seconds from the beginning to the left edge, where somebody moved it
  let drawn = null;
  const lanes = h("div", { class: "ssd-lanes", role: "group", "aria-label": `Timeline. ${KEYS}` });
  const note = h("p", { class: "ssd-lead" });
  const legend = h("ul", { class: "ssd-legend", "aria-label": "Kinds of spans" });
  const zoomer = slider("zoom", { min: 0, max: ZOOMS.length - 1, value: 0, show: (v) => `${ZOOMS[v]}×`, change: (v) => zoomTo(v, 0.5) });
  const clocks = h("select", { "aria-label": "clock", onchange: () => { clock = clocks.value; draw(); } });
  const element = section("timeline", "Timeline", `Drag to move. ${KEYS}`,
    h("div", { class: "ssd-sliders" }, h("label", { class: "ssd-slider" }, h("span", {}, "clock"), clocks), zoomer.element), lanes, legend, note);
  const watcher = new ResizeObserver(() => draw());
  watcher.observe(lanes);

  lanes.addEventListener("click", (event) => {
    const span = event.target.closest("[data-round]");
    if (span) chooseRound(app, Number(span.dataset.run), Number(span.dataset.round));
  });

  // Seconds shown, and where each run begins: around the selected round, at the same share of all runs.
  function view() {
    const all = app.data.runs.map((run) => run.clocks.find((one) => one.name === clock) ?? { rounds: [], spans: [] });
    const begins = all.map((one) => Math.min(one.rounds[0]?.[0] ?? 0, one.spans[0]?.[2] ?? Infinity));
    const lasts = all.map((one, i) => (one.rounds.at(-1)?.[1] ?? begins[i]) - begins[i]);
    const seconds = Math.max(1e-9, ...lasts) / ZOOMS[zoom];
    const bounds = all[app.selected.run].rounds[roundOf()] ?? [0, 0];
    const [from, to] = [bounds[0] - begins[app.selected.run], bounds[1] - begins[app.selected.run]];
    const offset = panned ?? (from + to - seconds) / 2;
    const longest = Math.max(...lasts);
    return { all, seconds, offset, longest, inSight: from >= offset && to <= offset + seconds, starts: begins.map((begin, i) => begin + Math.max(0, Math.min(offset, lasts[i] - seconds))) };
  }

  function panTo(offset) {
    const { seconds, longest } = view();
    panned = Math.max(0, Math.min(offset, longest - seconds));
    draw();
  }

  function zoomTo(wanted, at) {
    const before = view();
    zoom = Math.max(0, Math.min(ZOOMS.length - 1, wanted));
    chosen = true;
    zoomer.set(zoom);
    if (panned !== null) panned = Math.max(0, panned + (before.seconds - view().seconds) * at);
    draw();
  }

  panning(lanes, LEFT, {
    move(share) {
      const { offset, seconds, longest } = view();
      panTo(Math.max(0, Math.min(offset, longest - seconds)) + share * seconds);
    },
    zoom: (by, at) => zoomTo(zoom + by, at),
    toEnd: (end) => panTo(end < 0 ? 0 : Infinity),
    follow() {
      panned = null;
      draw();
    },
  });

  const roundOf = () => indexOfRound(app.run, app.step?.round);

  function draw() {
    const width = Math.floor(lanes.clientWidth);
    if (!app.data.runs.length || width < 80) return;
    const { all, seconds, starts } = view();
    const key = [width, clock, zoom, seconds, starts, app.selected.run, app.step?.round, app.data.runs.length, all.map((one) => one.spans.length)].join();
    if (key === drawn) return;
    drawn = key;
    const scale = (width - LEFT - 8) / seconds;
    const used = new Set();
    replace(lanes, app.data.runs.map((run, index) => runLanes(run, index, all[index], starts[index], seconds, scale, width, used)));
    replace(legend, Object.entries(KINDS).filter(([kind]) => used.has(kind)).map(([kind, words]) =>
      h("li", {}, h("span", { class: `ssd-swatch ${kind}`, "aria-hidden": "true" }), ` ${words}`)));
    const current = all[app.selected.run];
    const bounds = current.rounds[roundOf()];
    const stalled = bounds?.[2]?.length ? ` The batch waited for request${bounds[2].length > 1 ? "s" : ""} ${bounds[2].join(", ")}, which missed.` : "";
    note.textContent = `${current.note ?? "no such clock for this run"}${bounds ? `; this round took ${milliseconds(bounds[1] - bounds[0])}` : ""}${bounds?.[3] ? `, ${milliseconds(bounds[3])} of it for graphs captured and kernels compiled, and is left out of all rates` : ""}.${stalled}`;
  }

  function runLanes(run, index, own, start, seconds, scale, width, used) {
    const found = [...new Set(["target", ...own.spans.map(([lane]) => lane)])].sort(); // of several drafts: draft 0, draft 1
    const names = ["target", "draft", "link"].flatMap((role) => found.filter((lane) => lane.split(" ")[0] === role));
    const height = HEAD + names.length * LANE + 18;
    const px = (time) => LEFT + (time - start) * scale;
    const spans = own.spans.filter(([, , from, to]) => to > start && from < start + seconds);
    // what would be thinner than a third of a pixel is not seen, and thousands of them are slow
    const seen = spans.filter(([, , from, to]) => (to - from) * scale > 0.3);
    const selected = index === app.selected.run ? own.rounds[roundOf()] : null;
    return s(
      "svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "ssd-runlanes", role: "group", "aria-label": `Timeline of ${run.name}: ${own.rounds.length} rounds` },
      s("text", { x: 4, y: 13, class: "ssd-runname" }, run.name),
      selected ? s("rect", { class: "ssd-current", x: Math.max(LEFT, px(selected[0])), y: HEAD - 4, width: Math.max(2, (Math.min(selected[1], start + seconds) - Math.max(selected[0], start)) * scale), height: names.length * LANE + 6 }) : null,
      names.map((lane, row) => s("text", { x: LEFT - 6, y: HEAD + row * LANE + 16, "text-anchor": "end" }, lane)),
      seen.map(([lane, kind, from, to, round]) => {
        used.add(kind);
        const [left, right] = [Math.max(LEFT, px(from)), Math.min(width - 8, px(to))];
        return titled(s("rect", {
          class: `ssd-span ${kind}`, x: left.toFixed(2), width: Math.max(0.6, right - left - 0.4).toFixed(2), y: HEAD + names.indexOf(lane) * LANE + 3, height: LANE - 6,
          "data-run": index, "data-round": indexOfRound(run, round), "data-kind": kind,
        }), `${KINDS[kind]}: ${milliseconds(to - from)}${round >= 0 ? ` (round ${indexOfRound(run, round) + 1} of the run)` : ""}`);
      }),
      axis(start, seconds, px, height),
    );
  }

  return {
    element,
    render(reason) {
      if (reason === "hover" || !app.data.runs.length) return;
      if (panned !== null && reason === "selection" && !view().inSight) panned = null;
      if (reason === "data" || !clocks.options.length) {
        const names = [...new Set(app.data.runs.flatMap((run) => run.clocks.map((one) => one.name)))];
        replace(clocks, names.map((name) => h("option", { value: name }, name)));
        if (!names.includes(clock)) clock = names[0] ?? "measured";
        clocks.value = clock;
      }
      if (!chosen && reason === "data" && app.steps.length) {
        // about a dozen rounds in sight can be told apart
        const rounds = app.run.clocks[0]?.rounds.length ?? 0;
        zoom = Math.max(0, ZOOMS.findLastIndex((size) => size <= rounds / 10));
        zoomer.set(zoom);
      }
      draw();
    },
    destroy() {
      watcher.disconnect();
    },
  };
}

// Rounds are numbered from 0 in a trace; a trace that was cut begins later.
function indexOfRound(run, round) {
  return round === undefined || round < 0 ? -1 : round - (run.first_round ?? 0);
}

function axis(start, seconds, px, height) {
  const most = Math.max(2, Math.floor((px(start + seconds) - px(start)) / 70));
  const sizes = [-6, -5, -4, -3, -2, -1, 0, 1, 2].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power));
  const step = sizes.find((size) => seconds / size <= most) ?? seconds;
  const first = Math.ceil(start / step);
  const marks = [];
  for (let i = first; i * step <= start + seconds; i += 1) {
    marks.push(s("text", { x: px(i * step), y: height - 4, "text-anchor": "middle" }, `${Number((i * step * 1e3).toPrecision(6))}`));
  }
  return s("g", { class: "ssd-axis" }, s("text", { x: 4, y: height - 4 }, "ms"), marks);
}
