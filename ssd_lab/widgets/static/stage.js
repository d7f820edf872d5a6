// One round as a picture in layers, all of it from the trace: the text, the draft tokens with p and q, the coins, what was
// kept and what the target wrote itself, what was prepared, and the two lanes of time. `show` says which layers are seen;
// style.css moves them in.

import { decimal, h, milliseconds, prob, replace, token } from "./dom.js";
import { recordedOverlap } from "./overlap_view.js";
import { SIGNS, acceptChance, isBonus, recoveryWord, verdict } from "./state.js";

const TAIL = 9; // tokens of the text that are shown before the round

export function roundStage() {
  const element = h("div", { class: "ssd-stage" });
  return {
    element,
    draw({ run, request, step, number }) {
      const sampled = request.temperature > 0;
      replace(element,
        h("div", { class: "ssd-line" }, h("span", { class: "ssd-tail" }, textBefore(run, request, number).map((text, i) => h("span", { style: `--i:${i}` }, text))),
          step.draft_tokens.map((id, place) => chip(run, step, place, sampled)), ownChip(run, step)),
        passOf(run, step), maskOf(run, step), overlapOf(run, step), preparedFor(run, step), nextRound(run, request.steps[number + 1]), lanesOf(run, step));
    },
    show(layers) {
      element.dataset.layers = layers.join(" ");
    },
    // The prepared branch becomes the next round's draft tokens: they move there from where they were prepared.
    slide() {
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
      const from = [...element.querySelectorAll(".ssd-ready.caught .ssd-chip")];
      element.querySelectorAll(".ssd-following .ssd-chip").forEach((chip, i) => {
        if (!from[i + 1]) return;
        const [a, b] = [from[i + 1].getBoundingClientRect(), chip.getBoundingClientRect()];
        chip.animate([{ transform: `translate(${a.left - b.left}px, ${a.top - b.top}px)` }, { transform: "none" }],
          { duration: 900, delay: 120 * i, easing: "ease-in-out", fill: "backwards" });
      });
    },
  };
}

function textBefore(run, request, number) {
  const before = request.tokens.filter(([, step]) => step < number).map(([id]) => run.texts[id] ?? "");
  return [before.length > TAIL ? "…" : request.prompt ? `${request.prompt} → ` : "", ...before.slice(-TAIL)].filter(Boolean);
}

function word(run, id) {
  return h("span", { class: "ssd-token" }, token(run, id));
}

function chip(run, step, place, sampled) {
  const [p, q] = [step.target_probs[place], step.draft_probs[place]];
  const kind = verdict(step, place);
  const bar = (name, letter, value) => h("span", { class: "ssd-measure" }, `${letter} `, h("span", { class: `ssd-bar ${name}` }, h("span", { style: `width:${(100 * value).toFixed(1)}%` })), ` ${prob(value)}`);
  return h("span", { class: `ssd-chip guess ${kind}`, style: `--i:${place}` }, h("span", { class: "ssd-sign" }, SIGNS[kind]), word(run, step.draft_tokens[place]),
    h("span", { class: "ssd-under p-and-q" }, bar("target", "p", p), bar("draft", "q", q)), sampled && kind !== "untested" ? coin(step.coins?.[place], acceptChance(p, q)) : null);
}

// The coin lies left of the mark: kept.
function coin(value, chance) {
  if (value === undefined || value === null) return null;
  return h("span", { class: "ssd-under ssd-coin", title: `coin ${decimal(value, 3)}, kept below ${decimal(chance, 3)}` },
    h("span", { class: "ssd-coin-track" }, h("span", { class: "ssd-coin-keep", style: `width:${(100 * chance).toFixed(1)}%` }), h("span", { class: "ssd-coin-dot", style: `left:${(100 * value).toFixed(1)}%` })),
    h("small", {}, `${decimal(value)} ${value < chance ? "<" : "≥"} ${decimal(chance)}`));
}

function ownChip(run, step) {
  const kind = !step.draft_tokens.length ? "alone" : isBonus(step) ? "bonus" : "recovery";
  return h("span", { class: `ssd-chip own ${kind}` }, h("span", { class: "ssd-sign" }, { alone: "", bonus: "✚", recovery: "◆" }[kind]), word(run, step.recovery_token), h("small", {}, recoveryWord(step)));
}

// One pass of this round's, which is what a single token costs without guesses.
function passOf(run, step) {
  const { spans, note } = clockOf(run);
  const pass = spans.find(([, kind, , , round]) => kind === "verify" && round === step.round);
  return pass ? h("div", { class: "ssd-pass" }, h("div", { class: "ssd-stage-track" }, h("span", { class: "ssd-stage-span verify", style: "left:0;width:100%" }, `target: one pass, ${milliseconds(pass[3] - pass[2])}`)), h("small", { class: "ssd-help" }, note)) : null;
}

// Who sees whom in the target's one pass: a row for each token that is checked, and the last token of the text.
function maskOf(run, step) {
  const rows = ["text", ...step.draft_tokens.map((id) => token(run, id))];
  return h("div", { class: "ssd-mask" }, h("table", { class: "ssd-mask-table", "aria-label": "Which tokens each row of the target's pass sees" },
    h("tbody", {}, rows.map((name, row) => h("tr", { style: `--i:${row}` }, h("th", { scope: "row" }, name), rows.map((_, column) => h("td", { class: column <= row ? "seen" : "" }, column <= row ? "■" : "·")),
      h("td", { class: "ssd-answer" }, row < step.num_accepted ? `→ ${rows[row + 1]} ✓` : row === step.num_accepted ? `→ ${token(run, step.recovery_token)}` : "→ not used"))))),
  h("p", { class: "ssd-help" }, "The rows are checked together. A row sees the text and the tokens before it (■), never a later one (·), so each row gives the target's answer as if it were the only one."));
}

// p and q at the place of the rejection: what they share is kept, what p has more is where the recovery token is drawn from.
function overlapOf(run, step) {
  const picture = recordedOverlap(run, step.alternatives?.[Math.min(step.num_accepted, step.draft_tokens.length - 1)]);
  return picture && h("div", { class: "ssd-overlap" }, picture);
}

function preparedFor(run, step) {
  if (!step.tree || step.tree.verified) return null;
  const { tokens, branches } = step.tree;
  const groups = [...new Set(branches.map(([, , parent]) => parent))];
  return h("div", { class: "ssd-prepared" }, groups.map((parent) => h("div", { class: "ssd-ready-group" }, h("small", {}, `if ${parent + 1} accepted`),
    branches.map((branch, number) => [branch, number]).filter(([[, , other]]) => other === parent).slice(0, 3).map(([[start, end], number], i) =>
      h("div", { class: `ssd-ready${number === step.branch ? " caught" : ""}`, style: `--i:${parent + 1 + i}` },
        number === step.branch ? h("span", { class: "ssd-sign" }, "★") : null, tokens.slice(start, end).map((id) => h("span", { class: "ssd-chip small" }, word(run, id))))))));
}

function nextRound(run, next) {
  if (!next?.draft_tokens.length) return null;
  return h("div", { class: "ssd-following" }, h("small", {}, "next round's draft tokens"), next.draft_tokens.map((id) => h("span", { class: "ssd-chip small" }, word(run, id))));
}

// What target and draft did in the round, to scale, on the simulated clock where there is one: it does not depend on what
// else this machine had to do.
export function clockOf(run) {
  return run.clocks.find((clock) => clock.name === "simulated") ?? run.clocks[0];
}

function lanesOf(run, step) {
  const clock = clockOf(run);
  const spans = clock.spans.filter(([lane, kind, , , round]) => round === step.round && lane !== "link" && kind !== "wait");
  if (!spans.length) return null;
  const [from, to] = [Math.min(...spans.map(([, , start]) => start)), Math.max(...spans.map(([, , , end]) => end))];
  const words = { verify: "one pass", tree: "prepares", draft: "guesses", fallback: "guesses now" };
  return h("div", { class: "ssd-stage-lanes" }, ["target", "draft"].map((lane) => h("div", { class: "ssd-stage-lane" }, h("small", {}, lane), h("div", { class: "ssd-stage-track" },
    spans.filter(([other]) => other === lane).map(([, kind, start, end]) => h("span", {
      class: `ssd-stage-span ${kind}`, title: `${words[kind] ?? kind}: ${milliseconds(end - start)}`,
      style: `left:${(100 * (start - from) / (to - from)).toFixed(2)}%;width:${(100 * (end - start) / (to - from)).toFixed(2)}%`,
    }, `${words[kind] ?? kind} ${milliseconds(end - start)}`))))), h("small", { class: "ssd-help" }, clock.note));
}
