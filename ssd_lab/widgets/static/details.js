// What is known of the place that is hovered, focused or chosen: probabilities, the coin, the alternatives.

import { decimal, h, percent, prob, replace, section, token } from "./dom.js";
import { recordedOverlap } from "./overlap_view.js";
import { acceptChance, acceptedPath, isBonus, nodeVerdict, placeInTree, recoveryWord, treeParents, verdict } from "./state.js";
import { missNote } from "./tree.js";

export function detailsView(app) {
  const body = h("div", { class: "ssd-details-body", "aria-live": "polite" });
  let numbers = false; // unfolded: it stays so from token to token
  body.addEventListener("toggle", (event) => { numbers = event.target.open; }, true);
  const element = section("details", "The chosen token", null, body);
  return {
    element,
    // after the tree, which draws itself anew first
    render() {
      const step = app.step;
      const place = app.hovered ?? app.selected.place;
      if (!step) replace(body);
      else if (!place) replace(body, h("p", { class: "ssd-help" }, "Point at a token of the tree or the text, or choose one, to see its numbers here."));
      else replace(body, details(app.run, app.request, step, placeInTree(step, place)));
      for (const folded of body.querySelectorAll(".ssd-numbers")) folded.open = numbers;
      putWhereItIsSeen(element, body);
    },
  };
}

const NARROW_PX = 640; // below it the section stands under the tree, out of sight: what was tapped opens in its place

function putWhereItIsSeen(element, body) {
  const root = element.closest(".ssd-lab");
  const chosen = root && root.clientWidth < NARROW_PX ? root.querySelector(".ssd-stepper .ssd-tree [aria-selected=true]") : null;
  const row = chosen?.closest(".ssd-level");
  if (row) {
    body.setAttribute("role", "treeitem"); // a tree may hold nothing else
    body.setAttribute("aria-label", "The chosen token");
    row.after(body);
  } else if (body.parentElement !== element) {
    body.removeAttribute("role");
    body.removeAttribute("aria-label");
    element.append(body);
  }
  element.hidden = row !== null && row !== undefined;
}

function details(run, request, step, place) {
  const [kind, first, second] = place.split(":");
  if (kind === "draft" && step.draft_tokens[first] !== undefined) return draftDetails(run, request, step, Number(first));
  if (kind === "recovery") return recoveryDetails(run, request, step);
  if (kind === "branch" && step.tree?.branches[first]) return branchDetails(run, step, Number(first), Number(second));
  if (kind === "node" && step.tree) return nodeDetails(run, request, step, Number(first));
  return h("p", { class: "ssd-help" }, "This round has no such token.");
}

function facts(title, rows) {
  return [
    h("h3", {}, title),
    h("dl", { class: "ssd-facts" }, rows.filter(Boolean).map(([name, value, key]) =>
      [h("dt", {}, name), h("dd", key ? { "data-fact": key } : {}, value)])),
  ];
}

function draftDetails(run, request, step, place) {
  const [target, draft] = [step.target_probs[place], step.draft_probs[place]];
  const kind = verdict(step, place);
  const sampled = request.temperature > 0;
  const coin = step.coins?.[place] ?? null; // none for certain guesses
  const title = `Draft token ${place + 1}: ${token(run, step.draft_tokens[place])}`;
  const verdicts = {
    accepted: sampled ? "accepted" : "accepted: it is the target's likeliest token",
    rejected: sampled ? "rejected" : "rejected: the target's likeliest token is another",
    untested: "not tested: a token before it was rejected",
  };
  return [
    facts(title, [
      ["target probability p", prob(target), "target"],
      ["draft probability q", prob(draft), "draft"],
      sampled ? ["chance of being kept, min(1, p/q)", percent(acceptChance(target, draft), 1), "chance"] : null,
      sampled && coin !== null ? coinRow(coin, acceptChance(target, draft)) : null,
      sampled && coin === null && draft === 1 ? CERTAIN : null,
      ["verdict", verdicts[kind], "verdict"],
    ]),
    drawnAndTold(sampled ? recordedOverlap(run, step.alternatives?.[place], step.fan_out?.[place]) : null,
      alternatives(run, step.alternatives?.[place], { residual: sampled && kind === "rejected", chosen: step.draft_tokens[place] })),
  ];
}

function recoveryDetails(run, request, step) {
  const bonus = isBonus(step);
  const prepared = step.tree && !step.tree.verified;
  const { place, refused } = recoveryPlace(step);
  return [
    facts(`${recoveryWord(step)}: ${token(run, step.recovery_token)}`, [
      ["target probability", prob(step.recovery_prob), "target"],
      ["drawn from", bonus ? "the target's distribution after the last draft token" : request.temperature > 0
        ? "the residual, max(p − q, 0) over its sum" : "the target's likeliest token", "source"],
      step.recovery_coin !== undefined ? ["coin drawn", decimal(step.recovery_coin, 3), "coin"] : null,
      step.recovery_rank !== undefined ? ["rank among the draft's candidates", step.beyond_ranked ? `beyond ${step.recovery_rank}` : step.recovery_rank + 1, "rank"] : null,
      prepared ? ["in the cache", step.branch === null ? missNote(step) : "yes: a hit", "cached"] : null,
    ]),
    drawnAndTold(bonus || !request.temperature ? null : recordedOverlap(run, place, step.fan_out?.[step.num_accepted]),
      alternatives(run, place, { residual: !bonus && request.temperature > 0, chosen: step.recovery_token, refused })),
  ];
}

function branchDetails(run, step, number, depth) {
  const { tokens, draft_probs: probs, branches } = step.tree;
  const [start, end, parent] = branches[number];
  const own = branches.filter(([, , other]) => other === parent);
  const rank = own.findIndex(([other]) => other === start) + 1;
  const text = tokens.slice(start, end).map((id) => token(run, id));
  const sum = tokens.slice(start, start + depth + 1).reduce((product, _, i) => product * probs[start + i], 1);
  return [
    facts(depth ? `Prepared token ${depth}: ${text[depth]}` : `Candidate ${rank}: ${text[0]}`, [
      ["prepared for", `${parent + 1} accepted, then ${text[0]}`, "outcome"],
      ["draft probability", prob(probs[start + depth]), "draft"],
      depth ? ["probability of the branch so far", prob(sum), "branch"] : null,
      ["this round", number === step.branch ? "★ what happened: the next lookup hits" : "another outcome happened", "caught"],
      ["continuation", text.slice(1).join(" ") || "none", "continuation"],
    ]),
    depth ? null : h("table", { class: "ssd-table" }, h("caption", {}, `candidates at ${parent + 1} accepted`),
      h("thead", {}, h("tr", {}, ["rank", "token", "draft probability"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, own.slice(0, 8).map(([node], i) => h("tr", node === start ? { class: "current", "aria-current": "true" } : {},
        h("td", {}, i + 1), h("td", {}, token(run, tokens[node])), h("td", {}, bar(probs[node], "draft")))))),
    alternatives(run, step.alternatives?.[parent + 1], { residual: false, chosen: tokens[start] }),
  ];
}

function nodeDetails(run, request, step, node) {
  const { tokens, draft_probs: draft, target_probs: target, alternatives: tried, coins } = step.tree;
  const kind = nodeVerdict(step, node);
  const sampled = request.temperature > 0;
  const place = tried?.[node];
  const own = place?.tokens.indexOf(tokens[node]);
  const drawn = place?.draft_probs !== undefined;
  const [p, q] = [place?.target_probs[own], place?.draft_probs?.[own]];
  const earlier = siblingsBefore(step, node);
  const verdicts = {
    accepted: sampled ? "accepted" : "accepted: it is the target's likeliest token",
    rejected: sampled ? "rejected" : "rejected: the target's likeliest token is another",
    untested: "not tested: the round never came to it",
  };
  return [
    facts(`Tree token: ${token(run, tokens[node])}`, [
      ["target probability p", prob(target?.[node]), "target"],
      ["draft probability q", prob(draft[node]), "draft"],
      sampled && place && earlier.length ? [`p and q after ${earlier.map((other) => token(run, tokens[other])).join(", ")} ${kind === "untested" ? "would be" : earlier.length === 1 ? "was" : "were"} rejected`,
        drawn ? `${prob(p)} and ${prob(q)}` : prob(p), "tried"] : null,
      sampled && place ? ["chance of being kept, min(1, p/q)", percent(drawn ? acceptChance(p, q) : p, 1), "chance"] : null,
      sampled && place && !drawn ? CERTAIN : null,
      kind !== "untested" && drawn && coins ? coinRow(coins[node], acceptChance(p, q)) : null,
      ["verdict", verdicts[kind], "verdict"],
    ]),
    drawnAndTold(sampled ? recordedOverlap(run, place) : null,
      alternatives(run, place, { residual: sampled && kind === "rejected", chosen: tokens[node] })),
  ];
}

function siblingsBefore(step, node) {
  const parents = treeParents(step.tree);
  return parents.flatMap((parent, other) => (other < node && parent === parents[node] ? [other] : []));
}

// Where the recovery token was drawn: behind the last of the accepted nodes, after all of its children were refused.
function recoveryPlace(step) {
  const tried = step.tree?.verified ? step.tree.alternatives : null;
  const last = tried ? treeParents(step.tree).lastIndexOf(acceptedPath(step).at(-1)) : -1;
  if (last < 0) return { place: step.alternatives?.[step.num_accepted], refused: step.draft_tokens[step.num_accepted] };
  return { place: tried[last], refused: step.tree.tokens[last] };
}

// Where a picture shows the place, its table is a click away: both would be longer than a screen.
function drawnAndTold(picture, table) {
  return picture ? [picture, h("details", { class: "ssd-numbers" }, h("summary", {}, "These probabilities as numbers"), table)] : table;
}

const CERTAIN = ["test", "a certain guess: accepted if the target's own draw is this token", "test"];

function coinRow(coin, chance) {
  return ["coin drawn", `${decimal(coin, 3)} ${coin < chance ? "<" : "≥"} ${decimal(chance, 3)}`, "coin"];
}

// The likeliest tokens at a verified place, with the residual before and after Saguaro sampling where one was drawn from.
// A certain guess (no draft distribution) that was `refused` leaves all that the target gave to other tokens.
function alternatives(run, at, { residual, chosen, refused = chosen }) {
  if (!at) return h("p", { class: "ssd-help" }, "The alternatives to this token were not recorded. To see them, run with record_details=8.");
  const draft = at.draft_probs;
  const raw = at.draft_raw_probs;
  const columns = [["target p", at.target_probs]];
  if (raw && draft) columns.push(["draft q before Saguaro", raw], ["draft q as used", draft]);
  else if (draft) columns.push(["draft q", draft]);
  if (residual && draft) {
    const left = (probs) => at.target_probs.map((p, i) => Math.max(0, p - probs[i]));
    if (raw) columns.push(["residual before", left(raw)], ["residual as used", left(draft)]);
    else columns.push(["residual max(p − q, 0)", left(draft)]);
  } else if (residual) columns.push(["residual: p without it", at.target_probs.map((p, i) => (at.tokens[i] === refused ? 0 : p))]);
  const order = at.tokens.map((_, i) => i).sort((a, b) => at.target_probs[b] - at.target_probs[a]).slice(0, 12);
  const outside = (values) => Math.max(0, 1 - values.reduce((sum, value) => sum + value, 0));
  return h(
    "div", { class: "ssd-scroll", tabindex: 0, role: "group", "aria-label": "Alternatives here" },
    h("table", { class: "ssd-table", "data-table": "alternatives" },
      h("caption", {}, "likeliest tokens here"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "token"), columns.map(([name]) => h("th", { scope: "col" }, name)))),
      h("tbody", {},
        order.map((i) => h("tr", at.tokens[i] === chosen ? { class: "current", "aria-current": "true" } : {},
          h("td", {}, at.tokens[i] === chosen ? "▸ " : "", token(run, at.tokens[i])),
          columns.map(([name, values]) => h("td", {}, bar(values[i], name.startsWith("draft") ? "draft" : name.startsWith("residual") ? "residual" : "target"))))),
        h("tr", {}, h("td", {}, "others"), columns.map(([name, values]) =>
          h("td", {}, name.startsWith("residual") ? "–" : prob(outside(values))))))),
  );
}

function bar(value, kind) {
  return h("span", { class: `ssd-cellbar ${kind}`, style: `--width:${Math.min(100, 100 * value).toFixed(1)}%` }, prob(value));
}
