// The text, each token marked by where it came from: colour, and a line or sign that says the same without colour.

import { h, keyedChildren, replace, roving, section, spoken, tokenText } from "./dom.js";
import { isBonus } from "./state.js";

const KINDS = [
  ["hit", "accepted, from the cache"],
  ["draft", "accepted, drafted in turn"],
  ["fallback", "accepted, from the fallback"],
  ["custom", "accepted, the strategy's guess"],
  ["recovery", "recovery token"],
  ["bonus", "bonus token"],
  ["alone", "the target alone"],
];
const OF_ORIGIN = { jit: "fallback", fast: "fallback", tree: "draft", none: "alone" };

export function textView(app) {
  const prompt = h("p", { class: "ssd-prompt" });
  const body = h("div", { class: "ssd-text", role: "listbox", "aria-label": "Generated text by token" });
  const legend = h("ul", { class: "ssd-legend", "aria-label": "What the marks mean" });
  const element = section("text", "Text", null, prompt, body, legend);
  roving(body, "[data-step]");
  let words = [];
  let items = [];
  let shown = null;
  const draw = keyedChildren(body, (i) => {
    const { id, text, number, place, kind } = words[i];
    return h("span", {
      class: `ssd-word ${kind}`, role: "option", "data-step": number, "data-place": place < 0 ? "recovery" : `draft:${place}`,
      "aria-label": `${spoken(app.run, id)}, ${KINDS.find(([name]) => name === kind)[1]}, round ${number + 1}`, tabindex: -1,
    }, text === "" ? "∅" : text.includes("\n") ? text.replaceAll("\n", "↵\n") : text);
  });

  body.addEventListener("click", (event) => {
    const item = event.target.closest("[data-step]");
    if (item) app.select({ step: Number(item.dataset.step), place: item.dataset.place });
  });
  body.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === " ") && event.target.dataset.step) {
      event.preventDefault();
      event.stopPropagation();
      event.target.click();
    }
  });

  function build() {
    const { run, request } = app;
    prompt.textContent = request?.prompt ?? "";
    words = (request?.tokens ?? []).map(([id, number, place]) => ({ id, text: tokenText(run, id), number, place, kind: kindOf(request.steps[number], place) }));
    draw(words.map(({ text, number, place, kind }) => `${number} ${place} ${kind} ${text}`));
    items = [...body.children];
    if (items.length) items[0].tabIndex = 0;
    const used = new Set(words.map(({ kind }) => kind));
    replace(legend, KINDS.filter(([kind]) => used.has(kind)).map(([kind, words]) =>
      h("li", {}, h("span", { class: `ssd-word ${kind}`, "aria-hidden": "true" }, " ab "), ` ${words}`)));
  }

  let marked = [];
  function mark() {
    for (const item of marked) {
      item.classList.remove("current", "chosen");
      item.removeAttribute("aria-selected");
    }
    const { step, place } = app.selected;
    marked = items.filter((item) => Number(item.dataset.step) === step);
    for (const item of marked) {
      item.classList.add("current");
      if (item.dataset.place === place) {
        item.classList.add("chosen");
        item.setAttribute("aria-selected", "true");
      }
    }
    const first = marked[0];
    if (!first) return;
    // only the text scrolls, never the page
    const [top, height] = [first.offsetTop - body.offsetTop, body.clientHeight];
    if (top < body.scrollTop || top > body.scrollTop + height - 24) body.scrollTop = Math.max(0, top - height / 2);
  }

  return {
    element,
    render(reason) {
      if (reason === "hover") return;
      const now = `${app.selected.run}/${app.selected.request}`;
      if (reason === "data" || shown !== now) build();
      shown = now;
      mark();
    },
  };
}

function kindOf(step, place) {
  if (place >= 0) return OF_ORIGIN[step.origin] ?? (step.origin === "draft" || step.origin === "hit" ? step.origin : "custom");
  if (!step.draft_tokens.length) return "alone";
  return isBonus(step) ? "bonus" : "recovery";
}
