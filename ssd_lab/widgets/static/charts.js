// Small charts drawn by hand: axes with units, text that stays readable at any width.

import { s } from "./dom.js";

const WIDTH = 360;
const HEIGHT = 170;
const LEFT = 44;
const BOTTOM = 34;

export function chart(label, { x, y, xTicks, yTicks, xMax, yMax, xMin = 0, yMin = 0 }, ...marks) {
  const px = (value) => LEFT + ((value - xMin) / (xMax - xMin)) * (WIDTH - LEFT - 10);
  const py = (value) => HEIGHT - BOTTOM - ((value - yMin) / (yMax - yMin)) * (HEIGHT - BOTTOM - 10);
  const drawn = marks.flat().map((mark) => mark(px, py));
  return s(
    "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "ssd-chart", role: "img", "aria-label": label },
    s("g", { class: "ssd-axis" },
      yTicks.map(([value, text]) => [
        s("line", { x1: LEFT, x2: WIDTH - 10, y1: py(value), y2: py(value) }),
        s("text", { x: LEFT - 5, y: py(value) + 4, "text-anchor": "end" }, text),
      ]),
      xTicks.map(([value, text]) => s("text", { x: px(value), y: HEIGHT - BOTTOM + 14, "text-anchor": "middle" }, text)),
      s("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, x),
      s("text", { x: -(HEIGHT - BOTTOM) / 2, y: 11, "text-anchor": "middle", transform: "rotate(-90)" }, y)),
    drawn,
  );
}

export const PERCENT_TICKS = [[0, "0"], [0.5, "50"], [1, "100"]];

export function wholeTicks(max, most = 8) {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((size) => max / size <= most) ?? Math.ceil(max / most);
  return Array.from({ length: Math.floor(max / step) + 1 }, (_, i) => [i * step, String(i * step)]);
}

// An axis for any numbers: its ends, with room for all of them, and round numbers on it.
export function ticks(values, whole = false, most = 6) {
  const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const span = high - low || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(span / most));
  const fitting = [1, 2, 5, 10].map((part) => part * power).find((size) => span / size <= most);
  const step = whole ? Math.max(1, Math.ceil(fitting)) : fitting;
  const first = Math.floor(low / step) * step;
  const count = Math.ceil((high - first) / step) || 1;
  const places = Array.from({ length: count + 1 }, (_, i) => first + i * step);
  return { min: places[0], max: places.at(-1), ticks: places.map((place) => [place, String(Number(place.toPrecision(6)))]) };
}

export function line(points, className) {
  return (px, py) => s("polyline", { class: className, points: points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" ") });
}

export function titled(element, text) {
  element.append(s("title", {}, text));
  return element;
}
