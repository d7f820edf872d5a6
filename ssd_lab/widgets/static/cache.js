// The speculation cache of a round as a table, hits and misses by round, and what another setting would have caught.

import { PERCENT_TICKS, chart, line, titled, wholeTicks } from "./charts.js";
import { counterfactual } from "./counterfactual.js";
import { h, keyedChildren, legend, percent, plural, prob, replace, roving, s, section, token } from "./dom.js";
import { whyNothingPrepared } from "./state.js";
import { missNote } from "./tree.js";

const FEW_ROWS = 8;
const COLUMNS = 60; // rounds in a line of the strip
const CELL = 12;
const WIDEST = 2; // times that where there is room: a finger must find it

export function cacheView(app) {
  let everything = false;
  let shown = null;
  let cells = [];
  const lead = h("p", { class: "ssd-lead", "data-cache": "verdict" });
  const rows = h("div", { class: "ssd-scroll" });
  const counts = h("h3", {});
  const squares = s("svg", { class: "ssd-hits", role: "img" });
  const strip = h("div", { class: "ssd-strip" }, counts, squares,
    legend("What the marks mean", [["●", "hit: the round's outcome was prepared"], ["✕", "miss: it was not"], ["·", "no lookup followed"]]));
  const drawCells = keyedChildren(squares, (i) => {
    const hit = app.steps[i].next_hit;
    const [x, y] = [(i % COLUMNS) * CELL, Math.floor(i / COLUMNS) * CELL];
    const word = hit === null ? "no lookup" : hit ? "hit" : "miss";
    const mark = hit === false
      ? s("path", { d: `M${x + 3} ${y + 3}l6 6m0 -6l-6 6` })
      : s("circle", { cx: x + 6, cy: y + 6, r: hit === null ? 1.5 : 3.5 });
    return titled(s("g", { class: `ssd-hitcell ${word.replace(" ", "-")}`, "data-step": i },
      s("rect", { x: x + 0.5, y: y + 0.5, width: CELL - 1, height: CELL - 1 }), mark), `round ${i + 1}: ${word}`);
  });
  const curve = h("div", { class: "ssd-charts" });
  const what = counterfactual(app);
  const element = section("cache", "Speculation cache", null, lead, rows, strip, curve, what.element);
  roving(rows, "[data-place]");

  rows.addEventListener("click", (event) => {
    const place = event.target.closest("[data-place]")?.dataset.place;
    if (place) app.select({ step: app.selected.step, place });
  });
  rows.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === " ") && event.target.dataset.place) {
      event.preventDefault();
      event.stopPropagation();
      event.target.click();
    }
  });
  strip.addEventListener("click", (event) => {
    const step = event.target.closest("[data-step]")?.dataset.step;
    if (step !== undefined) app.select({ step: Number(step) });
  });

  function table(step) {
    const { run } = app;
    const tree = step.tree;
    const numbered = tree.branches.map((branch, number) => ({ branch, number }));
    const here = numbered.filter(({ branch }) => branch[2] === step.num_accepted - 1);
    const kept = everything ? numbered : here.slice(0, FEW_ROWS);
    const body = kept.map(({ branch: [start, end, parent], number }) => {
      const hit = number === step.branch;
      const chosen = (app.selected.place ?? "").startsWith(`branch:${number}:`) || (hit && app.selected.place === "recovery");
      return h("tr", { class: `${hit ? "hit" : ""}${chosen ? " chosen" : ""}`, "data-place": `branch:${number}:0`, tabindex: -1, "aria-selected": String(chosen) },
        h("td", {}, parent + 1), h("td", {}, hit ? [h("span", { "aria-hidden": "true" }, "★ "), h("span", { class: "ssd-unseen" }, "hit: ")] : null, token(run, tree.tokens[start])), h("td", {}, prob(tree.draft_probs[start])),
        h("td", { class: "ssd-continuation" }, tree.tokens.slice(start + 1, end).map((id) => token(run, id)).join(" ")));
    });
    if (body.length) body[0].tabIndex = 0;
    const hidden = numbered.length - kept.length;
    return [
      h("table", { class: "ssd-table", "data-table": "cache", role: "grid" },
        h("caption", {}, everything ? `all ${numbered.length} prepared outcomes` : `prepared at the real accepted length, ${step.num_accepted}`),
        h("thead", {}, h("tr", {}, ["accepted", "recovery token", "draft probability", "prepared draft"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, body.length ? body : h("tr", {}, h("td", { colspan: 4 }, "nothing was prepared here")))),
      hidden > 0 || everything
        ? h("button", { type: "button", class: "ssd-more", "aria-expanded": String(everything), onclick: () => { everything = !everything; render("data"); } },
            everything ? "only the real accepted length" : `show all ${numbered.length}`)
        : null,
    ];
  }

  function build() {
    const { run } = app;
    const { lookups, hits, curve: rates, power_law: law } = run.cache;
    const steps = app.steps;
    const columns = Math.min(COLUMNS, steps.length);
    const lines = Math.ceil(steps.length / Math.max(1, columns));
    strip.hidden = !lookups;
    counts.textContent = `Outcomes by round: ${lookups ? `${hits} of ${lookups} were prepared (${percent(hits / lookups, 1)} hits)` : "no lookups"}`;
    squares.setAttribute("viewBox", `0 0 ${columns * CELL} ${lines * CELL}`);
    squares.setAttribute("aria-label", `${hits} hits and ${lookups - hits} misses`);
    squares.style.maxWidth = `${columns * CELL * WIDEST}px`;
    drawCells(steps.map((step) => step.next_hit));
    cells = [...squares.children];
    replace(curve, rates.length ? hitCurve(rates, law) : null);
  }

  function verdict(step) {
    if (!step.tree || step.tree.verified) return whyNothingPrepared(app);
    const at = `${step.num_accepted} accepted, then ${token(app.run, step.recovery_token)}`;
    if (step.branch !== null) return `Hit: the outcome (${at}) was prepared.`;
    if (!step.missed_by) return `Miss: the outcome (${at}) was not prepared.`;
    if (step.beyond_ranked) return `Miss: the outcome (${at}) was ${missNote(step)}.`;
    const near = step.missed_by === 1 ? "Near miss: one more branch here would have caught it." : `${plural(step.missed_by, "more branch", "more branches")} here would have caught it.`;
    return `Miss: the outcome (${at}) was ${missNote(step)}, ${step.prepared} prepared. ${near}`;
  }

  function render(reason) {
    if (reason === "hover" || !app.run) return;
    const now = `${app.selected.run}/${app.selected.request}`;
    if (reason === "data" || shown !== now) build();
    shown = now;
    const step = app.step;
    const focused = rows.contains(document.activeElement) ? document.activeElement.dataset.place : null;
    lead.textContent = step ? verdict(step) : "No rounds were recorded.";
    replace(rows, step?.tree && !step.tree.verified ? table(step) : null);
    if (focused) rows.querySelector(`[data-place="${focused}"]`)?.focus();
    for (const cell of cells) cell.classList.toggle("current", Number(cell.dataset.step) === app.selected.step);
    what.render(reason);
  }

  return {
    element,
    render,
    get empty() {
      return !app.run?.cache.lookups && !app.steps.some((step) => step.tree && !step.tree.verified);
    },
  };
}

function hitCurve(rates, law) {
  const fitted = law && rates.map((_, i) => [i + 1, Math.min(1, Math.max(0, 1 - law[0] * (i + 1) ** -law[1]))]);
  const axes = {
    x: "fan-out F, the same at each accepted length", y: "hits, %", xMin: 0.5, xMax: rates.length + 0.5, yMax: 1,
    xTicks: wholeTicks(rates.length).filter(([value]) => value > 0), yTicks: PERCENT_TICKS,
  };
  return h("figure", {}, chart(
    `Hit rate against fan-out: ${rates.map((rate, i) => `${i + 1}: ${percent(rate)}`).join(", ")}`, axes,
    fitted ? line(fitted, "ssd-mean") : [],
    rates.map((rate, i) => (px, py) => titled(s("circle", { class: "ssd-dot", cx: px(i + 1), cy: py(rate), r: 3.5 }), `F = ${i + 1}: ${percent(rate, 1)}`)),
  ), h("figcaption", {}, law
    ? `recorded outcomes (dots), fit: miss rate = ${law[0].toFixed(2)} F^−${law[1].toFixed(2)} (line)`
    : "recorded outcomes"));
}
