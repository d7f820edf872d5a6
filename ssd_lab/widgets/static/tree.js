// The stepper's tree: the trunk is what was verified, token under token; right of it, what was prepared for the case
// that exactly so many of them are accepted.

import { drawnTree } from "./drawn_tree.js";
import { h, legend, percent, plural, prob, replace, roving, section, spoken, token } from "./dom.js";
import { ORIGINS, SIGNS, acceptChance, acceptedPath, isBonus, nodeVerdict, placeInTree, recoveryWord, treeParents, verdict, whyNothingPrepared } from "./state.js";
import { preparedNodes, verifiedNodes } from "./tree_nodes.js";

const FEW = 4; // branches shown at each accepted length until more are asked for

export function treeView(app, { title = "Draft tree", follow = null } = {}) {
  const open = new Set(); // accepted lengths whose branches are all shown
  const tree = h("div", { class: "ssd-tree", role: "tree", "aria-label": "Draft tree of this round" });
  const lead = h("p", { class: "ssd-lead", "aria-live": follow === null ? "polite" : null });
  const flow = h("p", { class: "ssd-help", "data-tree": "flow" });
  const marks = h("div", {});
  const drawn = h("div", {});
  const whole = h("details", { class: "ssd-whole" }, h("summary", {}, "The whole tree, drawn"), drawn);
  let touched = false;
  whole.firstChild.addEventListener("click", () => { touched = true; });
  whole.addEventListener("toggle", () => { if (touched) render("data"); }); // drawn when it is looked at
  const why = h("p", { class: "ssd-help", "data-tree": "why" });
  const element = section("stepper", title, null, lead, flow, whole, tree, why, marks);
  roving(tree, "[data-place]");
  const shown = () => (follow === null ? { run: app.run, request: app.request, step: app.step } : follow());
  let pointer = "";

  tree.addEventListener("click", (event) => {
    const item = event.target.closest("[data-place], [data-more]");
    if (!item) return;
    if (item.dataset.more !== undefined) {
      const level = Number(item.dataset.more);
      if (!open.delete(level)) open.add(level);
      render("data");
    } else choose(item.dataset.place);
  });
  for (const [type, out] of [["pointerover", false], ["focusin", false], ["pointerleave", true]]) {
    tree.addEventListener(type, (event) => {
      if (follow !== null) return;
      // what is drawn anew under a resting pointer was not pointed at
      const at = `${event.screenX} ${event.screenY}`;
      if (type === "pointerover" && at === pointer) return;
      if (type !== "focusin") pointer = at;
      const item = out ? null : event.target.closest("[data-place]");
      if (out || item) app.hover(item ? item.dataset.place : null);
    });
  }

  function choose(place) {
    app.select(follow === null ? { step: app.selected.step, place } : follow().selection(place));
  }

  let picture = null;
  let places = [];
  function draw(run, step) {
    whole.hidden = !step?.tree;
    const focused = drawn.contains(document.activeElement);
    if (!touched) whole.open = step?.tree?.verified === true; // branches are seen as such in the rows
    if (whole.hidden || !whole.open) return replace(drawn);
    const nodes = step.tree.verified ? verifiedNodes(run, step) : preparedNodes(run, step, (accepted) => (open.has(accepted) ? Infinity : FEW));
    places = nodes.map((node) => node.place);
    picture = drawnTree(nodes, { root: "⋯", label: "The tree of this round", straight: !step.tree.verified, choose: (node) => choose(places[node]) });
    replace(drawn, picture.element);
    const at = places.indexOf(placeInTree(step, app.selected.place));
    picture.mark(follow === null ? at : -1);
    if (focused) drawn.querySelector(`[data-node="${Math.max(0, at)}"]`)?.focus();
  }

  function render(reason) {
    if (reason === "hover") return;
    const { run, request, step } = shown();
    draw(run, step);
    const sampled = request?.temperature > 0;
    const focused = tree.contains(document.activeElement) ? document.activeElement.dataset.place : null;
    if (!step) {
      lead.textContent = "No rounds were recorded.";
      replace(tree);
      replace(flow);
      replace(marks);
      why.textContent = "";
      return;
    }
    replace(lead, ...headline(run, step));
    replace(flow, ...comesAndGoes(step));
    replace(tree, step.tree?.verified ? verifiedLevels(run, step, sampled) : levels(run, step, sampled));
    replace(marks, marksOf(step));
    why.textContent = follow !== null || step.tree ? "" : whyNothingPrepared(app);
    const selected = follow === null ? placeInTree(step, app.selected.place) : null;
    const items = [...tree.querySelectorAll("[data-place]")];
    for (const item of items) item.tabIndex = -1;
    const current = items.find((item) => item.dataset.place === selected);
    if (current) current.setAttribute("aria-selected", "true");
    const stop = items.find((item) => item.dataset.place === focused) ?? current ?? items[0];
    if (stop) stop.tabIndex = 0;
    if (focused && stop) stop.focus();
  }

  function levels(run, step, sampled) {
    const count = step.draft_tokens.length;
    const branches = step.tree?.branches ?? [];
    const longest = Math.max(count, ...branches.map(([, , parent]) => parent + 1));
    return Array.from({ length: longest + 1 }, (_, accepted) => {
      const own = branches.map((branch, number) => [branch, number]).filter(([[, , parent]]) => parent === accepted - 1);
      return level(accepted, trunkItem(run, step, accepted, sampled), [
        accepted === step.num_accepted ? outcome(run, step) : null,
        branchItems(run, step, accepted, own),
      ]);
    });
  }

  function branchItems(run, step, accepted, own) {
    if (!own.length) return null;
    const kept = open.has(accepted) ? own : own.filter(([, number], rank) => rank < FEW || number === step.branch);
    return [
      kept.map(([branch, number]) => branchItem(run, step, branch, number, own)),
      own.length > FEW
        ? h("button", { type: "button", class: "ssd-more", "data-more": accepted, "aria-expanded": String(open.has(accepted)) },
            open.has(accepted) ? "fewer" : `+ ${own.length - kept.length} more`)
        : null,
    ];
  }

  // A tree that was verified as a whole: the path that was kept is the trunk, the other nodes hang off it.
  function verifiedLevels(run, step, sampled) {
    const children = new Map();
    treeParents(step.tree).forEach((parent, node) => children.set(parent, [...(children.get(parent) ?? []), node]));
    const path = acceptedPath(step);
    const under = (node, depth) => [
      nodeItem(run, step, node, depth),
      (children.get(node) ?? []).map((child) => under(child, depth + 1)),
    ];
    return path.map((node, accepted) =>
      level(accepted, accepted === 0 ? trunkItem(run, step, 0, sampled) : nodeItem(run, step, node), [
        accepted === path.length - 1 ? outcome(run, step) : null,
        (children.get(node) ?? []).filter((child) => child !== path[accepted + 1]).map((child) => under(child, 0)),
      ]));
  }

  return { element, render };
}

function headline(run, step) {
  const own = h("code", {}, token(run, step.recovery_token));
  if (!step.draft_tokens.length) return [h("strong", {}, "The target writes one token alone: "), own, "."];
  const kept = step.tree?.verified ? verifiedCount(step) : `${step.num_accepted} of ${step.draft_tokens.length} accepted`;
  return [h("strong", {}, kept), `, then the ${recoveryWord(step)} `, own, "."];
}

function verifiedCount(step) {
  const verdicts = step.tree.tokens.map((_, node) => nodeVerdict(step, node));
  const tried = verdicts.filter((kind) => kind !== "untested").length;
  return `${step.num_accepted} accepted; ${tried} of the ${plural(verdicts.length, "tree token")} tried`;
}

// Where the draft tokens came from, and what the outcome leads to: two lookups, one before the round and one after it.
function comesAndGoes(step) {
  if (!step.draft_tokens.length) return [];
  const goes = step.next_hit === null ? null : step.next_hit ? "prepared: a hit" : "not prepared: a miss";
  return [`Draft tokens: ${ORIGINS[step.origin] ?? step.origin}.`, goes && ` Outcome: ${goes}.`].filter(Boolean);
}

function marksOf(step) {
  const { tree } = step;
  const sample = (name) => h("span", { class: `ssd-bar ${name}` }, h("span", { style: "width:100%" }));
  const verdicts = tree?.verified ? tree.tokens.map((_, node) => nodeVerdict(step, node)) : step.draft_tokens.map((_, place) => verdict(step, place));
  const words = { accepted: "accepted", rejected: "rejected", untested: "not tested: a token before it was rejected" };
  return legend("What the marks mean", [
    step.draft_tokens.length ? [sample("target"), "p, the target's probability"] : null,
    step.draft_tokens.length ? [sample("draft"), "q, the draft's"] : null,
    ...Object.keys(words).map((kind) => (verdicts.includes(kind) ? [SIGNS[kind], words[kind]] : null)),
    step.draft_tokens.length ? (isBonus(step) ? ["✚", "bonus token: the target's own, after all were accepted"] : ["◆", "recovery token: the target's own, in place of the rejected one"]) : null,
    tree?.branches.length && !tree.verified ? ["1 2 3", "recovery tokens prepared for, likeliest first; the darker, the likelier"] : null,
    step.branch !== null ? ["★", "prepared, and it came: a hit"] : null,
  ].filter(Boolean));
}

function level(accepted, trunk, branches) {
  return h(
    "div", { class: "ssd-level", role: "none" },
    h("div", { class: "ssd-trunk", role: "none" }, trunk),
    h("div", { class: "ssd-branches", role: "none", "data-accepted": accepted }, branches),
  );
}

function trunkItem(run, step, accepted, sampled) {
  if (accepted === 0) {
    return h("div", { class: "ssd-root", role: "none" }, "⋯ text so far");
  }
  const place = accepted - 1;
  const drafted = step.draft_tokens[place];
  if (drafted === undefined) {
    // near the end of a text fewer tokens are verified than were drafted
    return h("div", { class: "ssd-node untested", role: "none" }, token(run, step.tree.tokens[place]), h("small", {}, "not verified"));
  }
  const kind = verdict(step, place);
  const [target, draft] = [step.target_probs[place], step.draft_probs[place]];
  return h(
    "button", {
      type: "button", class: `ssd-node ${kind}`, role: "treeitem", "aria-level": accepted, "data-place": `draft:${place}`,
      "aria-label": `draft token ${accepted}, ${spoken(run, drafted)}, ${kind}; target ${prob(target)}, draft ${prob(draft)}${sampled ? `, chance ${percent(acceptChance(target, draft))}` : ""}`,
    },
    h("span", { class: "ssd-sign", "aria-hidden": "true" }, SIGNS[kind]),
    h("span", { class: "ssd-token" }, token(run, drafted)),
    h("small", {}, kind === "untested" ? "not tested" : kind),
    bars(target, draft),
  );
}

function bars(target, draft) {
  const bar = (name, value) => h("span", { class: `ssd-bar ${name}`, title: `${name} ${prob(value)}` },
    h("span", { style: `width:${Math.max(1, 100 * (value ?? 0)).toFixed(1)}%` }));
  return h("span", { class: "ssd-bars", "aria-hidden": "true" }, bar("target", target), bar("draft", draft));
}

function outcome(run, step) {
  const bonus = isBonus(step);
  const alone = !step.draft_tokens.length;
  const caught = step.branch !== null;
  const prepared = step.tree && !step.tree.verified;
  const note = caught ? "prepared" : prepared ? missNote(step) : "";
  return h(
    "button", {
      type: "button", class: `ssd-node ${alone ? "alone" : bonus ? "bonus" : "recovery"}`, role: "treeitem", "aria-level": step.num_accepted + 1,
      "data-place": "recovery",
      "aria-label": `${recoveryWord(step)} ${spoken(run, step.recovery_token)}, target ${prob(step.recovery_prob)}${note ? `, ${note}` : ""}`,
    },
    h("span", { class: "ssd-sign", "aria-hidden": "true" }, alone ? "" : bonus ? "✚" : "◆"),
    h("span", { class: "ssd-token" }, token(run, step.recovery_token)),
    h("small", {}, recoveryWord(step), note ? ` · ${note}` : ""),
  );
}

export function missNote(step) {
  if (step.missed_by === null || step.missed_by === undefined) return "not prepared";
  if (step.beyond_ranked) return `not prepared, nor among the draft's first ${step.recovery_rank} candidates`;
  return `not prepared: candidate ${step.recovery_rank + 1}, ${plural(step.missed_by, "more branch", "more branches")} needed`;
}

function branchItem(run, step, [start, end, parent], number, own) {
  const { tokens, draft_probs: probs } = step.tree;
  const caught = number === step.branch;
  const rank = own.findIndex(([, other]) => other === number) + 1;
  const candidate = token(run, tokens[start]);
  const rest = Array.from({ length: end - start - 1 }, (_, i) => start + 1 + i);
  return h(
    "div", { class: `ssd-branch${caught ? " caught" : ""}`, role: "none" },
    h(
      "button", {
        type: "button", class: "ssd-node candidate", role: "treeitem", "data-place": `branch:${number}:0`,
        "aria-level": parent + 2, "aria-posinset": rank, "aria-setsize": own.length, style: `--shade:${probs[start].toFixed(3)}`,
        "aria-label": `candidate ${rank} after ${parent + 1} accepted, ${spoken(run, tokens[start])}, draft ${prob(probs[start])}${caught ? ", hit" : ""}`,
      },
      h("span", { class: "ssd-sign", "aria-hidden": "true" }, caught ? "★" : rank),
      h("span", { class: "ssd-token" }, candidate),
      h("small", {}, caught ? `hit · ${prob(probs[start])}` : prob(probs[start])),
    ),
    h("span", { class: "ssd-rest", role: "none" }, rest.map((node, depth) =>
      h("button", {
        type: "button", class: "ssd-next", role: "treeitem", "data-place": `branch:${number}:${depth + 1}`,
        style: `--shade:${probs[node].toFixed(3)}`, "aria-level": parent + depth + 3,
        "aria-label": `prepared token ${depth + 1}, ${spoken(run, tokens[node])}, draft ${prob(probs[node])}`,
      }, token(run, tokens[node])))),
  );
}

// depth: of a node beside the trunk, below the one that left it; null on the trunk.
function nodeItem(run, step, node, depth = null) {
  const { tokens, draft_probs: draft, target_probs: target } = step.tree;
  const kind = nodeVerdict(step, node);
  return h(
    "button", {
      type: "button", class: `ssd-node ${kind}`, role: "treeitem", "data-place": `node:${node}`,
      style: `--depth:${depth ?? 0}`, "aria-level": levelOf(step, node),
      "aria-label": `tree token ${spoken(run, tokens[node])}, ${kind}; target ${prob(target[node])}, draft ${prob(draft[node])}`,
    },
    h("span", { class: "ssd-sign", "aria-hidden": "true" }, SIGNS[kind]),
    h("span", { class: "ssd-token" }, token(run, tokens[node])),
    h("small", {}, h("span", depth === null ? {} : { class: "ssd-said-by-sign" }, kind === "untested" ? "not tested" : kind, depth === null ? null : " · draft "),
      depth === null ? null : prob(draft[node])),
    depth === null ? bars(target[node], draft[node]) : null,
  );
}

function levelOf(step, node) {
  const parents = treeParents(step.tree);
  let level = 1;
  for (let at = parents[node]; at >= 0; at = parents[at]) level += 1;
  return level;
}
