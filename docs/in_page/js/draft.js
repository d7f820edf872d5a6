// The draft's side: k tokens one after another, and, while the target verifies them, k more for each of the likeliest
// outcomes (accepted length, recovery token).

import { causal } from "./model.js";
import { PURPOSE, uniform } from "./random.js";
import { argmax, largest, saguaro, sample, softmax } from "./sampling.js";

const RANKED = 64; // a trace tells the rank of a recovery token among so many candidates
export const LARGEST = { k: 16, f: 8 };

export function branchSlots() {
  return (LARGEST.k + 1) * LARGEST.f * LARGEST.k;
}

export class Draft {
  constructor(model) {
    this.model = model;
  }

  // order: {temperature, seed, k, f, factor, tree}: tree says whether outcomes are prepared.
  begin(promptIds, order) {
    this.order = order;
    this.tokens = [...promptIds];
    this.prepared = null;
    this.proposed = null;
    this.model.forward(causal(promptIds.slice(0, -1), 0), 0);
  }

  // outcome: {num_accepted, recovery_token} of what was proposed last, null before the first round. Answers k tokens.
  answer(outcome) {
    if (outcome) this.tokens.push(...this.proposed.tokens.slice(0, outcome.num_accepted), outcome.recovery_token);
    const { tree } = this.order;
    const found = outcome && this.prepared ? this.#lookUp(outcome) : null;
    const drawn = found?.branch ?? this.#chain();
    this.proposed = drawn;
    return {
      ...drawn,
      origin: !tree ? "draft" : found?.branch ? "hit" : "jit",
      cache_hit: tree && outcome ? Boolean(found?.branch) : null,
      previous: found?.previous ?? null,
    };
  }

  // k draft tokens after the text. The last two tokens are read: where all were accepted the last one is new to the cache,
  // and reading the other again writes the same K/V again.
  #chain() {
    const { k } = this.order;
    const length = this.tokens.length;
    const steps = [];
    let logits = this.model.forward(causal(this.tokens.slice(-2), length - 2), 1);
    for (let i = 0; i < k; i++) {
      steps.push(this.#draw(logits, length + i));
      if (i < k - 1) logits = this.model.forward(causal([steps[i].token], length + i));
    }
    return joined(steps);
  }

  // While the target verifies: read the proposed tokens, then decode all branches in parallel. A branch sees the text, the
  // accepted tokens before it, and itself.
  prepare() {
    const { k, f } = this.order;
    const { vocab } = this.model.config;
    const { tokens: chain, tokenProbs } = this.proposed;
    const length = this.tokens.length;
    const outlooks = this.model.forward(causal([this.tokens.at(-1), ...chain], length - 1));
    const branches = [];
    const candidates = [];
    for (let accepted = 0; accepted <= chain.length; accepted++) {
      const logits = outlooks.subarray(accepted * vocab, (accepted + 1) * vocab);
      const plain = softmax(logits, 0);
      candidates.push(largest(logits, RANKED, chain[accepted] ?? -1)); // the drafted token would have been accepted
      for (const recovery of candidates[accepted].slice(0, f)) branches.push({ accepted, recovery, prob: plain[recovery], steps: [], last: recovery });
    }
    for (let step = 0; step < k; step++) {
      const rows = branches.map(({ accepted, last }, branch) => {
        const from = this.model.textSlots + branch * k;
        return { token: last, position: length + accepted + step, slot: from + step, prefix: length + accepted, from };
      });
      const logits = this.model.forward(rows);
      branches.forEach((branch, row) => {
        branch.steps.push(this.#draw(logits.subarray(row * vocab, (row + 1) * vocab), length + branch.accepted + 1 + step));
        branch.last = branch.steps[step].token;
      });
    }
    this.prepared = { branches, candidates, tree: recorded(chain, tokenProbs, branches), fan_out: candidates.map(() => f) };
  }

  #lookUp({ num_accepted: accepted, recovery_token: recovery }) {
    const { branches, candidates, tree, fan_out } = this.prepared;
    this.prepared = null;
    const rank = candidates[accepted].indexOf(recovery);
    const branch = branches.find((one) => one.accepted === accepted && one.recovery === recovery);
    return { branch: branch ? joined(branch.steps) : null, previous: { tree, fan_out, recovery_rank: rank < 0 ? candidates[accepted].length : rank } };
  }

  #draw(logits, place) {
    const { temperature, seed, f, factor, tree } = this.order;
    const raw = softmax(logits, temperature);
    if (temperature === 0) {
      const token = argmax(logits);
      return { token, prob: raw[token], probs: null, raw: null };
    }
    const probs = tree ? saguaro(raw, f, factor) : raw;
    const token = sample(probs, uniform(seed, place, PURPOSE.draft));
    return { token, prob: probs[token], probs, raw: probs === raw ? null : raw };
  }
}

function joined(steps) {
  const all = (name) => (steps[0][name] === null ? null : steps.map((step) => step[name]));
  return { tokens: all("token"), tokenProbs: all("prob"), probs: all("probs"), raw: all("raw") };
}

// As a trace has it: the chain, then branch after branch, each node with its parent.
function recorded(chain, chainProbs, branches) {
  const tree = { tokens: [...chain], parents: chain.map((_, i) => i - 1), draft_probs: [...chainProbs], target_probs: null, alternatives: null, coins: null };
  for (const { accepted, recovery, prob, steps } of branches) {
    const first = tree.tokens.length;
    tree.tokens.push(recovery, ...steps.map((step) => step.token));
    tree.draft_probs.push(prob, ...steps.map((step) => step.prob));
    tree.parents.push(accepted - 1, ...steps.map((_, i) => first + i));
  }
  return tree;
}
