// The shape of a draft tree, and beside it who sees whom: the mask of the target's one pass. Both show the chosen node.

import { h, legend, plural, replace, section } from "./dom.js";
import { drawnTree } from "./drawn_tree.js";
import { keepKeys } from "./keys.js";
import { followTheme } from "./theme.js";

export function mountShape(root, { parents, words, chosen, onChange = () => {} }) {
  root.classList.add("ssd-lab");
  const release = keepKeys(root);
  const unfollow = followTheme(root);
  const seen = parents.reduce((all, parent, node) => [...all, [...(parent < 0 ? [] : all[parent]), node]], []);
  const tree = drawnTree(parents.map((parent, node) => ({ parent, label: words[node], kind: "plain", said: `node ${node}: ${words[node]}, sees ${plural(seen[node].length - 1, "other node")}` })),
    { label: "The tree", choose: (node) => { choose(node); onChange(node); } });
  const cells = parents.map((_, row) => parents.map((_, column) => {
    const sees = seen[row].includes(column);
    return h("td", { class: sees ? "seen" : "", "data-cell": `${row} ${column}` }, sees ? "■" : "·");
  }));
  const heads = parents.map((_, row) => h("th", { scope: "row" }, `${row} ${words[row]}`));
  const mask = h("div", { class: "ssd-scroll ssd-mask", tabindex: 0, role: "group", "aria-label": "The mask" }, h("table", { "aria-label": "Row and column are nodes: ■ row sees column" },
    h("thead", {}, h("tr", {}, h("td", {}), parents.map((_, column) => h("th", { scope: "col" }, column)))),
    h("tbody", {}, parents.map((_, row) => h("tr", { onclick: () => { choose(row); onChange(row); } }, heads[row], cells[row])))));
  const said = h("p", { "aria-live": "polite" });
  replace(root, section("shape", "A draft tree and its mask", "Choose a node: it sees the text and the nodes on its own path, and no others.",
    h("div", { class: "ssd-shape-parts" }, tree.element, mask), said, legend("What the marks mean", [["■", "the row's node sees the column's"], ["·", "it does not"]])));

  function choose(node) {
    tree.mark(node, seen[node]);
    cells.forEach((row, number) => row.forEach((cell, column) => cell.classList.toggle("on-path", number === node && seen[node].includes(column))));
    heads.forEach((head, number) => head.classList.toggle("on-path", number === node));
    said.textContent = `Node ${node}, ${words[node]}, sees the text${seen[node].length > 1 ? ` and ${seen[node].slice(0, -1).map((other) => words[other]).join(", ")}` : ""} and itself.`;
  }

  choose(Math.min(chosen, parents.length - 1));
  return {
    choose,
    destroy() {
      unfollow();
      release();
      root.replaceChildren();
    },
  };
}
