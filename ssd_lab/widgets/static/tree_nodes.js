// A round's tree as the nodes of drawn_tree.js.

import { spoken, token } from "./dom.js";
import { SIGNS, acceptedPath, isBonus, nodeVerdict, recoveryWord, treeParents, verdict } from "./state.js";

// What was verified, and the target's own token behind the last that was kept.
export function verifiedNodes(run, step) {
  const nodes = treeParents(step.tree).map((parent, node) => {
    const kind = nodeVerdict(step, node);
    const label = token(run, step.tree.tokens[node]);
    return { parent, label: `${SIGNS[kind]} ${label}`, kind, place: `node:${node}`, said: `${spoken(run, step.tree.tokens[node])}, ${kind}` };
  });
  return [...nodes, ownNode(run, step, acceptedPath(step).at(-1))];
}

// What was verified in a line, and behind each accepted length what was prepared for it; so many of each are drawn.
export function preparedNodes(run, step, most) {
  const { tokens, branches } = step.tree;
  const nodes = step.draft_tokens.map((id, i) => {
    const kind = verdict(step, i);
    return { parent: i - 1, label: `${SIGNS[kind]} ${token(run, id)}`, kind, place: `draft:${i}`, said: `draft token ${spoken(run, id)}, ${kind}` };
  });
  if (step.branch === null) nodes.push(ownNode(run, step, step.num_accepted - 1));
  const drawn = new Map();
  branches.forEach(([start, end, parent], number) => {
    const rank = (drawn.get(parent) ?? 0) + 1;
    drawn.set(parent, rank);
    const caught = number === step.branch;
    if (parent >= step.draft_tokens.length || (rank > most(parent + 1) && !caught)) return;
    for (let node = start; node < end; node += 1) {
      const first = node === start;
      nodes.push({
        parent: first ? parent : nodes.length - 1, label: `${first && caught ? "★ " : ""}${token(run, tokens[node])}`, kind: caught ? "caught" : "prepared",
        place: `branch:${number}:${node - start}`, said: `${first ? `prepared for ${parent + 1} accepted, then` : "then"} ${spoken(run, tokens[node])}${first && caught ? ", a hit" : ""}`,
      });
    }
  });
  return nodes;
}

function ownNode(run, step, parent) {
  const bonus = isBonus(step);
  return { parent, label: `${bonus ? "✚" : "◆"} ${token(run, step.recovery_token)}`, kind: bonus ? "bonus" : "recovery", place: "recovery", said: `${recoveryWord(step)} ${spoken(run, step.recovery_token)}` };
}
