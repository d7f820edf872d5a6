// A prepared tree as chains: the tokens under verification, then branches, each [start, end, parent].

import { shorts } from "./view_numbers.js";

export function treeView({ tree, fan_out }) {
  if (!tree) return null;
  const chain = fan_out.length - 1;
  const starts = tree.parents.flatMap((parent, node) => (node >= chain && (parent !== node - 1 || node === chain) ? [node] : []));
  return {
    tokens: tree.tokens,
    draft_probs: shorts(tree.draft_probs),
    chain: starts[0] ?? tree.tokens.length,
    branches: starts.map((start, i) => [start, starts[i + 1] ?? tree.tokens.length, tree.parents[start]]),
    verified: false,
  };
}

// The branch that was prepared for what then happened.
export function caughtBranch({ num_accepted: accepted, recovery_token: token }, view) {
  const found = view?.branches.findIndex(([start, , parent]) => parent === accepted - 1 && view.tokens[start] === token) ?? -1;
  return found < 0 ? null : found;
}

// How many recovery tokens were prepared at the real accepted length.
export function preparedAt({ fan_out, num_accepted }) {
  return fan_out ? fan_out[num_accepted] : null;
}

export function placeView({ tokens, target_probs, draft_probs, draft_raw_probs }) {
  return {
    tokens,
    target_probs: shorts(target_probs),
    ...(draft_probs && { draft_probs: shorts(draft_probs) }),
    ...(draft_raw_probs && { draft_raw_probs: shorts(draft_raw_probs) }),
  };
}
