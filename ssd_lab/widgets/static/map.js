// The map of asynchronous over synchronous speed: a picture made by Python, and a cross to move over it.

import { decimal, h, percent, replace, s, section, slider } from "./dom.js";
import { keepKeys } from "./keys.js";
import { followTheme } from "./theme.js";

const gainAt = (t, hits) => (1 + t) / (hits * Math.max(1, t) + (1 - hits) * (1 + t));

export function mountMap(root, { picture, frame, points, place, onChange = () => {} }) {
  let now = { ...place };
  root.classList.add("ssd-lab");
  const release = keepKeys(root);
  const unfollow = followTheme(root);
  const figure = h("div", { class: "ssd-map" });
  figure.innerHTML = picture; // everything in it was escaped
  const cross = s("path", { class: "ssd-map-cross", d: "M-11 0h22M0 -11v22" });
  const drawing = figure.querySelector("svg");
  drawing.append(cross);
  const said = h("p", { "aria-live": "polite" });
  const move = (patch) => {
    now = { ...now, ...patch };
    draw();
    onChange(now);
  };
  const sliders = [
    ["draft_time", slider("T, draft over verification", { min: 0, max: frame.most, step: 0.05, value: now.draft_time, show: (value) => decimal(value), change: (value) => move({ draft_time: value }) })],
    ["hit_rate", slider("hits", { min: 0, max: 1, step: 0.01, value: now.hit_rate, show: percent, change: (value) => move({ hit_rate: value }) })],
  ];
  const wide = frame.width - frame.left - frame.right;
  const high = frame.height - frame.top - frame.bottom;
  const drag = (event) => {
    const box = drawing.getBoundingClientRect();
    const scale = frame.width / box.width;
    const within = (value, most) => Math.min(most, Math.max(0, value));
    move({
      draft_time: within((((event.clientX - box.left) * scale - frame.left) / wide) * frame.most, frame.most),
      hit_rate: within(1 - ((event.clientY - box.top) * scale - frame.top) / high, 1),
    });
    sliders.forEach(([name, control]) => control.set(now[name]));
  };
  drawing.addEventListener("pointerdown", (event) => {
    drawing.setPointerCapture(event.pointerId);
    drag(event);
  });
  drawing.addEventListener("pointermove", (event) => { if (drawing.hasPointerCapture(event.pointerId)) drag(event); });
  const row = (point, number) => h("tr", {}, h("th", { scope: "row" }, `${number + 1}. ${point.name}`), h("td", {}, decimal(point.draft_time)), h("td", {}, percent(point.hit_rate)),
    h("td", {}, `${decimal(point.gain)}×`), h("td", {}, `${decimal(gainAt(point.draft_time, point.hit_rate))}×`));
  replace(root, section("map", "Where does asynchronous pay?", "Speed of asynchronous over synchronous speculation, the darker the faster, where each model has a device of its own and a tree costs no more than a chain. The numbered points are machines as they are: an orange ring where asynchronous is the slower one there.",
    figure, said, h("div", { class: "ssd-sliders" }, sliders.map(([, control]) => control.element)),
    points.length ? h("div", { class: "ssd-scroll", tabindex: 0, role: "group", "aria-label": "Machines on the map" }, h("table", { class: "ssd-table" },
      h("thead", {}, h("tr", {}, ["machine", "T", "hits", "async over sync", "by the map"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, points.map(row)))) : null,
    points.length ? h("details", {}, h("summary", {}, "where the points come from"), h("ol", {}, points.map((point) => h("li", {}, point.source)))) : null));

  function draw() {
    cross.setAttribute("transform", `translate(${frame.left + (now.draft_time / frame.most) * wide} ${frame.top + (1 - now.hit_rate) * high})`);
    const gain = gainAt(now.draft_time, now.hit_rate);
    const bound = (1 + now.draft_time) / Math.max(1, now.draft_time);
    replace(said, `At T = ${decimal(now.draft_time)} with ${percent(now.hit_rate)} hits asynchronous speculation is `, h("b", { "data-gain": gain.toFixed(3) }, `${decimal(gain)} times`),
      ` as fast as synchronous; if every lookup hit it would be ${decimal(bound)} times.`);
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
