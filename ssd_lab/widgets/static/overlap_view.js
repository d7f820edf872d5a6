// The picture of p and q with its words: of two distributions to move by hand, or of a recorded place; C as a slider.

import { decimal, h, legend, percent, replace, section, slider, token } from "./dom.js";
import { keepKeys } from "./keys.js";
import { bent, byProbability, caught, kept, overlapChart, residual } from "./overlap.js";
import { followTheme } from "./theme.js";

const FEW = 7; // tokens of a recorded place that are drawn; the rest stands in one more
const OTHERS = "others";

function marks(movable) {
  const swatch = (name) => h("span", { class: `ssd-key ${name}` });
  return legend("What the marks mean", [
    [swatch("p"), movable ? "p, the target (●)" : "p, the target"],
    [swatch("q"), movable ? "q, the draft (◆)" : "q, the draft"],
    [swatch("shared"), "both: kept"],
    [swatch("excess"), "q too large: rejected that often"],
    [swatch("residual"), "q too small: the recovery token comes from here"],
  ]);
}

// Widget: `words`, `target`, `draft`, `fan_out` (0: no C), `factor`.
export function mountOverlap(root, { words, target, draft, fan_out: width, factor, onChange = () => {} }) {
  const now = { target: [...target], draft: [...draft], factor };
  root.classList.add("ssd-lab");
  const release = keepKeys(root);
  const unfollow = followTheme(root);
  const chart = overlapChart(words, {
    label: "Probabilities of target and draft: arrow keys change the one that is chosen",
    moved(which, i, value) {
      const name = which === "p" ? "target" : "draft";
      now[name] = withValue(now[name], i, value);
      draw();
      onChange({ [name]: now[name] });
    },
  });
  const said = h("div", { "aria-live": "polite" });
  const control = slider("Saguaro factor C", { min: 0, max: 1, step: 0.05, value: factor, show: (value) => value.toFixed(2), change: (value) => { now.factor = value; draw(); onChange({ factor: value }); } });
  const again = h("button", { type: "button", onclick: () => { Object.assign(now, { target: [...target], draft: [...draft], factor }); control.set(factor); draw(); onChange({ ...now }); } }, "as at the start");
  const help = width ? "Move the ends of the bars, or C. C bends q on the tokens that are prepared; the handles show q before bending." : "Move the ends of the bars, by pointer or with ↑ and ↓. The other bars adjust, so that each distribution still sums to one.";
  replace(root, section("overlap", "p and q", help, chart.element, marks(true), said, h("div", { class: "ssd-sliders" }, width ? control.element : null, h("div", {}, again))));

  function draw() {
    const ranked = byProbability(now.draft);
    const used = width ? bent(now.draft, ranked, width, now.factor) : now.draft;
    chart.show({ p: now.target, q: used, usual: width ? now.draft : null, grips: now.draft });
    const prepared = width ? ranked.slice(0, width).map((i) => words[i]) : null;
    replace(said, tellOverlap(words, now.target, used, { prepared, hits: width ? caught(now.target, used, ranked, width) : null }));
  }

  draw();
  return {
    destroy() {
      unfollow();
      release();
      root.replaceChildren();
    },
  };
}

// One value of a distribution changed, the others scaled to the rest.
export function withValue(values, i, value) {
  const others = values.reduce((sum, one, j) => (j === i ? sum : sum + one), 0);
  return values.map((one, j) => (j === i ? value : others > 0 ? (one / others) * (1 - value) : (1 - value) / (values.length - 1)));
}

function tellOverlap(words, p, q, { prepared, hits }) {
  const share = kept(p, q);
  const left = residual(p, q);
  const order = byProbability(left).filter((i) => left[i] > 0.0005);
  return [
    h("p", {}, "Kept ", h("b", { "data-overlap": "kept" }, percent(share, 1)), ", rejected ", percent(1 - share, 1), ". ",
      order.length && share < 0.9995 ? ["After a rejection the target draws ", h("span", { "data-overlap": "residual" }, order.slice(0, 4).map((i) => `${words[i]} ${percent(left[i])}`).join(", ")), order.length > 4 ? " and others." : "."] : "There is nothing to repair."),
    prepared && share < 0.9995 ? h("p", {}, `Prepared: ${prepared.join(", ")}. After a rejection `, h("b", { "data-overlap": "hits" }, percent(hits, 1)), " of the lookups hit.") : null,
  ];
}

// A recorded place. `width`: how many tokens the draft prepared for there, if it did; with it comes C.
export function recordedOverlap(run, at, width = 0) {
  if (!at?.draft_probs) return null;
  const { tokens, target_probs: p, draft_probs: q, draft_raw_probs: before } = at;
  const drawn = tokens.map((_, i) => i).sort((a, b) => Math.max(p[b], q[b]) - Math.max(p[a], q[a])).slice(0, FEW);
  const withOthers = (values) => [...values, Math.max(0, 1 - values.reduce((sum, value) => sum + value, 0))];
  const few = (values) => withOthers(drawn.map((i) => values[i]));
  const words = [...tokens.map((id) => token(run, id)), OTHERS];
  const [target, used, raw] = [p, q, before ?? q].map(withOthers);
  const ranked = byProbability(before ?? q); // what is not recorded is no candidate
  const chart = overlapChart([...drawn.map((i) => words[i]), OTHERS], { label: "p and q at this place: where they agree, where q is too large, where it is too small" });
  const said = h("div", { "aria-live": "polite" });
  const show = (now, prepared) => {
    chart.show({ p: few(target.slice(0, -1)), q: few(now.slice(0, -1)), usual: prepared || before ? few(raw.slice(0, -1)) : null });
    replace(said, tellOverlap(words, target, now, { prepared: prepared && ranked.slice(0, width).map((i) => words[i]), hits: prepared ? caught(target, now, ranked, width) : null }));
  };
  const recorded = run.strategy.saguaro_c ?? 1;
  const control = slider("Saguaro factor C", {
    min: 0, max: 1, step: 0.05, value: recorded, show: (value) => (value === recorded ? `${decimal(value)}, as recorded` : decimal(value)),
    change: (factor) => show(factor === recorded ? used : bent(raw, ranked, width, factor), true),
  });
  show(used, width > 0);
  return h("div", { class: "ssd-overlap-place" }, chart.element, marks(false), said, width > 0 ? control.element : null);
}
