// A tree drawn as one: the text at the left, each token right of the one that it follows, a line between them.

import { h, s } from "./dom.js";

const ROW = 30;
const HIGH = 24;
const LETTER = 7.9;
const BETWEEN = 26; // columns
const WIDEST = 13; // letters

// nodes: [{parent, label, kind, said, place}], parents before their children, -1 the text. straight: first children stand
// in their parent's line, as a trunk; else parents stand in the middle of their children. choose: of a node's number, where
// nodes can be chosen.
export function drawnTree(nodes, { root = "text", label, straight = false, choose = null } = {}) {
  const depths = nodes.reduce((all, { parent }) => [...all, parent < 0 ? 1 : all[parent] + 1], []);
  const names = nodes.map((node) => (node.label.length > WIDEST ? `${node.label.slice(0, WIDEST - 1)}…` : node.label));
  const deepest = Math.max(0, ...depths);
  const wide = Array.from({ length: deepest + 1 }, (_, depth) => 20 + LETTER * Math.max(2, ...(depth ? names.filter((_, i) => depths[i] === depth) : [root]).map((name) => name.length)));
  const left = wide.map((_, depth) => 2 + wide.slice(0, depth).reduce((sum, one) => sum + one + BETWEEN, 0));
  const rows = rowsOf(nodes, straight);
  const y = (row) => 4 + row * ROW + HIGH / 2;
  const edge = (node, i) => {
    const [from, to] = [left[depths[i] - 1] + wide[depths[i] - 1], left[depths[i]]];
    const [a, b] = [y(rows.get(node.parent)), y(rows.get(i))];
    const middle = (from + to) / 2;
    return s("path", { class: `ssd-edge ${node.kind}`, d: `M${from} ${a}C${middle} ${a} ${middle} ${b} ${to} ${b}` });
  };
  const box = (i, name, kind, props) => s("g", { class: `ssd-drawn-node ${kind}`, ...props },
    s("rect", { x: left[i < 0 ? 0 : depths[i]], y: y(rows.get(i)) - HIGH / 2, width: wide[i < 0 ? 0 : depths[i]], height: HIGH, rx: 7 }),
    s("text", { x: left[i < 0 ? 0 : depths[i]] + wide[i < 0 ? 0 : depths[i]] / 2, y: y(rows.get(i)) + 4.5, "text-anchor": "middle" }, name));
  const boxes = nodes.map((node, i) => box(i, names[i], node.kind, choose
    ? { role: "button", tabindex: -1, "aria-label": node.said ?? node.label, "aria-pressed": "false", "data-node": i, "data-at": node.place }
    : { "data-node": i }));
  const width = left[deepest] + wide[deepest] + 3;
  const height = 8 + Math.max(...rows.values()) * ROW + HIGH;
  const drawing = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "ssd-drawn", role: choose ? "group" : "img", "aria-label": label },
    nodes.map(edge), box(-1, root, "root", {}), boxes);
  if (choose) makeChoosable(drawing, boxes, choose);
  return {
    element: h("div", { class: "ssd-scroll" }, drawing),
    mark(chosen, path = []) {
      boxes.forEach((one, i) => {
        if (choose) {
          one.setAttribute("aria-pressed", String(i === chosen));
          one.tabIndex = i === Math.max(0, chosen) ? 0 : -1;
        }
        one.classList.toggle("on-path", path.includes(i));
      });
    },
  };
}

// The lines of a tree: every leaf has one.
function rowsOf(nodes, straight) {
  const rows = new Map();
  let next = 0;
  const place = (i) => {
    const own = nodes.flatMap((node, child) => (node.parent === i ? [child] : []));
    if (!own.length) rows.set(i, next++);
    own.forEach(place);
    if (own.length) rows.set(i, straight ? rows.get(own[0]) : (rows.get(own[0]) + rows.get(own.at(-1))) / 2);
  };
  place(-1);
  return rows;
}

// One stop for the tab key; arrows go from node to node in their order.
function makeChoosable(drawing, boxes, choose) {
  drawing.addEventListener("click", (event) => {
    const box = event.target.closest("[data-node]");
    if (box) choose(Number(box.dataset.node));
  });
  drawing.addEventListener("keydown", (event) => {
    const at = boxes.indexOf(event.target);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by === undefined && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation(); // elsewhere the arrows step through the rounds
    if (by === undefined) return void choose(at);
    const next = boxes[Math.min(boxes.length - 1, Math.max(0, at + by))];
    next.focus();
    choose(boxes.indexOf(next));
  });
}
