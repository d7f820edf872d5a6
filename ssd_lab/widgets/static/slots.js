// The KV cache in a round: what was there, what the target's pass writes, what stays and what is rolled back.

import { h, legend, plural, replace, section, token } from "./dom.js";
import { SIGNS, acceptedPath, nodeVerdict, verdict } from "./state.js";

const BEFORE = 4; // slots of the text that are shown
const SAME_SLOTS = ["sync_chain", "async_tree"]; // whose draft is a model that reads what the target reads

export function slotsView(app) {
  const lead = h("p", { class: "ssd-lead" });
  const body = h("div", { class: "ssd-scroll", tabindex: 0, role: "group", "aria-label": "Slots of the KV cache" });
  let shown = null;
  const said = h("p", { class: "ssd-help" });
  const element = section("slots", "KV cache of the round", null, lead, body, said, legend("What the marks mean", [
    ["✓", "kept"], ["✗ ·", "rolled back: the length ends before it, and the next pass writes over it"], ["◆", "not in the cache yet: the next pass writes it"], ["┃", "a new block begins"],
  ]));
  body.addEventListener("click", (event) => {
    const place = event.target.closest("[data-place]")?.dataset.place;
    if (place) app.select({ step: app.selected.step, place });
  });

  return {
    element,
    get empty() {
      return !app.steps.some((step) => step.draft_tokens.length);
    },
    render(reason) {
      if (reason === "hover" || !app.run) return;
      const step = app.step;
      element.classList.toggle("fresh", step !== shown); // only a new round moves
      shown = step;
      if (!step) return replace(body);
      const written = writtenIn(step);
      const kept = written.filter((one) => one.keeps);
      lead.textContent = `The pass writes ${plural(written.length + 1, "slot")}: ${kept.length + 1} kept, ${written.length - kept.length} rolled back.`;
      replace(body, table(app, step, written, kept));
      body.scrollLeft = Math.max(0, body.querySelector(".written").offsetLeft - body.clientWidth / 3); // where it is too wide
      said.textContent = step.tree?.verified
        ? "A node's slot is its number in the tree. Slots of the accepted path are copied to where the text continues. Nothing is erased: the next pass overwrites the rest."
        : `Nothing is copied and nothing is erased: the length is set back to the last accepted token, and the next pass overwrites what comes after it.${SAME_SLOTS.includes(app.run.strategy.name) ? " The draft's cache has the same slots and is rolled back with it." : ""}`;
    },
  };
}

// What is written behind the text, in the order of the slots.
function writtenIn(step) {
  if (!step.tree?.verified) {
    return step.draft_tokens.map((id, i) => ({ id, kind: verdict(step, i), keeps: i < step.num_accepted, place: `draft:${i}`, ends: i }));
  }
  const path = acceptedPath(step).slice(1);
  return step.tree.tokens.map((id, node) => ({ id, kind: nodeVerdict(step, node), keeps: path.includes(node), place: `node:${node}`, ends: path.indexOf(node) }));
}

function table({ run, request, selected }, step, written, kept) {
  const last = step.position - 1; // of the text's last token, which this pass writes
  const first = Math.max(0, last - BEFORE);
  const slots = Array.from({ length: last + written.length + 2 - first }, (_, i) => first + i); // one more, for a bonus token
  const landed = [...kept].sort((a, b) => a.ends - b.ends);
  const edge = (slot) => (run.block_size && slot % run.block_size === 0 ? " edge" : "");
  const held = (slot) => ({ kind: "held", name: textAt(run, request, slot) });
  const of = (one, kind) => ({ kind: `${kind} ${one.kind}`, sign: SIGNS[one.kind], name: token(run, one.id) });
  const stages = {
    before: (slot) => slot < last && held(slot),
    "the pass": (slot) => {
      const one = written[slot - last - 1];
      if (slot <= last) return { ...held(slot), kind: slot < last ? "held" : "written" };
      return one && { ...of(one, "written"), place: one.place };
    },
    after: (slot) => {
      const number = slot - last - 1;
      if (slot <= last) return held(slot);
      if (number < landed.length) return of(landed[number], "held");
      return number === landed.length && { kind: "next", sign: "◆", name: token(run, step.recovery_token) };
    },
  };
  const cell = (slot, what) => {
    if (!what) return h("td", { class: `free${edge(slot)}` });
    const shown = [what.sign ? h("span", { class: "ssd-slot-sign", "aria-hidden": "true" }, what.sign) : null, what.name];
    return h("td", { class: what.kind + edge(slot) }, what.place
      ? h("button", { type: "button", "data-place": what.place, "aria-pressed": String(what.place === selected.place) }, shown) : shown);
  };
  return h("table", { class: "ssd-slots-table", "aria-label": "Slots before the target's pass, in it and after it" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, run.block_size ? `slot, ${run.block_size} a block` : "slot"), slots.map((slot) => h("th", { scope: "col", class: edge(slot) }, slot)))),
    h("tbody", {}, Object.entries(stages).map(([name, at]) => h("tr", { class: name.replace(" ", "-") }, h("th", { scope: "row" }, name), slots.map((slot) => cell(slot, at(slot)))))));
}

function textAt(run, request, slot) {
  const generated = request.tokens[slot - request.steps[0].position];
  return slot < request.steps[0].position ? "prompt" : generated ? token(run, generated[0]) : "…";
}
