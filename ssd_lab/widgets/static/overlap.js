// p and q over the same tokens as two outlines that overlap: what they share, what q has too much, and what it lacks.

import { s } from "./dom.js";

const HEIGHT = 230;
const LEFT = 30;
const FOOT = 24;
const GAP = 6;
const TOP = 10;
const REACH = 15; // of a finger around a handle
let pictures = 0;

export function kept(p, q) {
  return p.reduce((sum, value, i) => sum + Math.min(value, q[i]), 0);
}

export function residual(p, q) {
  const left = p.map((value, i) => Math.max(0, value - q[i]));
  const sum = left.reduce((all, value) => all + value, 0);
  return left.map((value) => (sum > 0 ? value / sum : 0));
}

// The draft's distribution with its `width` likeliest tokens scaled by `factor`, as decoding/saguaro.py; ranked: tokens by q.
export function bent(q, ranked, width, factor) {
  const prepared = new Set(ranked.slice(0, width));
  const weights = q.map((value, i) => (prepared.has(i) ? factor * value : value));
  const sum = weights.reduce((all, value) => all + value, 0);
  return sum > 0 ? weights.map((value) => value / sum) : q;
}

// Given a rejection: is the recovery token among those prepared? They are the `width` likeliest without the refused one.
export function caught(p, q, ranked, width) {
  const left = residual(p, q);
  const refused = residual(q, p);
  const inside = ranked.slice(0, width);
  const sum = (values) => inside.reduce((all, i) => all + values[i], 0);
  return sum(left) + sum(refused) * (left[ranked[width]] ?? 0);
}

export function byProbability(q) {
  return q.map((_, i) => i).sort((a, b) => q[b] - q[a] || a - b);
}

// `moved(which, i, value)`: makes the bars movable, by pointer and by keys. show: `usual`, q before it was bent, drawn
// thin; `grips`, q where it is moved.
export function overlapChart(names, { moved = null, label }) {
  const id = `ssd-overlap-${pictures++}`;
  const wide = names.length > 6 ? 54 : 60;
  const width = LEFT + wide * names.length; // few tokens are read on a phone, too
  const left = (i) => LEFT + i * wide + GAP / 2;
  let most = 1;
  const y = (value) => TOP + (1 - value / most) * (HEIGHT - FOOT - TOP);
  const shapes = s("g", {});
  const grid = s("g", { class: "ssd-axis" });
  const element = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, style: `max-width: ${1.35 * width}px`, class: "ssd-overlap-chart", role: moved ? "group" : "img", "aria-label": label },
    s("defs", {}, s("pattern", { id, width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      s("rect", { width: 7, height: 7, class: "ssd-overlap-residual-ground" }), s("rect", { width: 3.5, height: 7, class: "ssd-overlap-residual-line" }))),
    grid, shapes,
    names.map((name, i) => s("text", { x: left(i) + (wide - GAP) / 2, y: HEIGHT - 8, "text-anchor": "middle", class: "ssd-overlap-name" }, shortened(name, wide))));
  const handles = moved ? names.flatMap((name, i) => [handle("p", i, name), handle("q", i, name)]) : [];
  element.append(...handles.map((one) => one.element));

  function handle(which, i, name) {
    const at = left(i) + (wide - GAP) * (which === "p" ? 0.28 : 0.72);
    const mark = which === "p" ? s("circle", { r: 6 }) : s("rect", { x: -5, y: -5, width: 10, height: 10, transform: "rotate(45)" });
    const grip = s("g", { class: `ssd-grip ${which}`, role: "slider", tabindex: 0, "aria-label": `${which} of ${name}`, "aria-orientation": "vertical", "aria-valuemin": 0, "aria-valuemax": 1 },
      s("circle", { r: REACH, class: "ssd-reach" }), mark);
    let value = 0;
    const change = (wanted) => moved(which, i, Math.min(0.98, Math.max(0, wanted)));
    grip.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      grip.setPointerCapture(event.pointerId);
      grip.focus();
    });
    grip.addEventListener("pointermove", (event) => {
      if (!grip.hasPointerCapture(event.pointerId)) return;
      const box = element.getBoundingClientRect();
      const place = ((event.clientY - box.top) / box.height) * HEIGHT;
      change((1 - (place - TOP) / (HEIGHT - FOOT - TOP)) * most);
    });
    grip.addEventListener("keydown", (event) => {
      const by = { ArrowUp: 0.01, ArrowRight: 0.01, ArrowDown: -0.01, ArrowLeft: -0.01, PageUp: 0.1, PageDown: -0.1, Home: -1, End: 1 }[event.key];
      if (by === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      change(value + by);
    });
    return {
      element: grip,
      show(now) {
        value = now;
        grip.setAttribute("transform", `translate(${at.toFixed(1)} ${y(now).toFixed(1)})`);
        grip.setAttribute("aria-valuenow", now.toFixed(3));
        grip.setAttribute("aria-valuetext", `${(100 * now).toFixed(0)} percent`);
      },
    };
  }

  const block = (i, from, to, className, fill) => to > from && s("rect", { x: left(i), width: wide - GAP, y: y(to), height: y(from) - y(to), class: className, fill });
  const outline = (values, className) => s("path", {
    class: className, d: values.map((value, i) => `M${left(i)} ${y(0)}V${y(value).toFixed(1)}H${(left(i) + wide - GAP).toFixed(1)}V${y(0)}`).join(""),
  });

  return {
    element,
    show({ p, q, usual = null, grips = q }) {
      most = moved ? 1 : Math.min(1, 1.06 * Math.max(0.05, ...p, ...q));
      const ticks = [0, 0.1, 0.2, 0.4, 0.6, 0.8, 1].filter((tick) => tick <= most && (most <= 0.5 || tick !== 0.1));
      grid.replaceChildren(...ticks.flatMap((tick) => [s("line", { x1: LEFT, x2: width, y1: y(tick), y2: y(tick) }), s("text", { x: LEFT - 4, y: y(tick) + 4, "text-anchor": "end" }, String(tick))]));
      shapes.replaceChildren(...p.flatMap((value, i) => [
        block(i, 0, Math.min(value, q[i]), "ssd-overlap-shared"),
        block(i, q[i], value, "ssd-overlap-residual", `url(#${id})`),
        block(i, value, q[i], "ssd-overlap-excess"),
      ].filter(Boolean)), ...(usual ? [outline(usual, "ssd-overlap-usual")] : []), outline(p, "ssd-overlap-p"), outline(q, "ssd-overlap-q"));
      handles.forEach((one, number) => one.show((number % 2 ? grips : p)[Math.floor(number / 2)]));
    },
  };
}

function shortened(name, wide) {
  const most = Math.max(3, Math.floor(wide / 7));
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}
