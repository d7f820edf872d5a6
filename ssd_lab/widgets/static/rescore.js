// Counterfactuals on the recorded rounds. The twin in Python is tests/rescoring.py; a test compares the two.

// Outcomes of the rounds as they were, cut to another lookahead and looked up under another schedule.
export function rescore(steps, fanOut) {
  const lookahead = fanOut.length - 1;
  const sum = { rounds: 0, accepted: 0, lookups: 0, hits: 0 };
  for (const step of steps) {
    const length = Math.min(step.num_accepted, lookahead);
    const rank = rankAt(step, lookahead);
    sum.rounds += 1;
    sum.accepted += length;
    if (rank !== null) {
      sum.lookups += 1;
      sum.hits += rank < fanOut[length] ? 1 : 0;
    }
  }
  return sum;
}

function rankAt(step, lookahead) {
  if (step.num_accepted <= lookahead) {
    const rank = step.recovery_rank ?? null;
    const cut = step.num_accepted === lookahead && lookahead < step.draft_tokens.length;
    return rank !== null && cut ? rank + draftedBefore(step, lookahead) : rank;
  }
  const at = step.alternatives?.[lookahead];
  const probs = at?.draft_raw_probs ?? at?.draft_probs;
  const place = at ? at.tokens.indexOf(step.draft_tokens[lookahead]) : -1;
  if (!probs || place < 0) return 0;
  return probs.filter((prob) => prob > probs[place]).length;
}

function draftedBefore(step, lookahead) {
  const at = step.alternatives?.[lookahead];
  if (!at?.draft_probs) return 1;
  const probs = at.draft_raw_probs ?? at.draft_probs;
  const of = (token, otherwise) => (at.tokens.includes(token) ? probs[at.tokens.indexOf(token)] : otherwise);
  return of(step.draft_tokens[lookahead], 1) >= of(step.recovery_token, 0) ? 1 : 0;
}

// What to expect at another temperature or Saguaro factor, from the recorded distributions at each verified place.
// Tokens outside the recorded ones are taken as one. power: old over new temperature.
export function expectUnder(steps, fanOut, { saguaro, power }) {
  const lookahead = fanOut.length - 1;
  const sum = { rounds: 0, accepted: 0, known: 0, hits: 0 };
  for (const step of steps) {
    if (!step.alternatives) continue;
    sum.rounds += 1;
    let reached = 1;
    for (let place = 0; place < lookahead && place < step.draft_tokens.length; place += 1) {
      const chances = placeChances(step, place, fanOut[place], saguaro, power);
      if (chances === null) break;
      sum.known += reached * (1 - chances.accept);
      sum.hits += reached * (1 - chances.accept) * chances.caught;
      reached *= chances.accept;
      sum.accepted += reached;
    }
    // after the last draft token the draft's candidates are known by the rank alone
    if (lookahead === step.draft_tokens.length && step.num_accepted === lookahead && step.recovery_rank !== undefined) {
      sum.known += reached;
      sum.hits += step.recovery_rank < fanOut[lookahead] ? reached : 0;
    }
  }
  return sum;
}

function placeChances(step, place, width, saguaro, power) {
  const at = step.alternatives[place];
  if (!at?.draft_probs) return null;
  const target = withRest(at.target_probs, power);
  const raw = withRest(at.draft_raw_probs ?? at.draft_probs, power);
  const drafted = at.tokens.indexOf(step.draft_tokens[place]);
  const ranked = at.tokens.map((_, i) => i).sort((a, b) => raw[b] - raw[a] || a - b);
  const scaled = new Set(ranked.slice(0, width));
  const weights = raw.map((prob, i) => (scaled.has(i) ? saguaro * prob : prob));
  const total = weights.reduce((a, b) => a + b, 0);
  const used = weights.map((weight) => weight / total);
  const accept = target.reduce((all, p, i) => all + Math.min(p, used[i]), 0);
  const residual = target.map((p, i) => Math.max(0, p - used[i]));
  const left = residual.reduce((a, b) => a + b, 0);
  const caught = ranked.filter((i) => i !== drafted).slice(0, width).reduce((all, i) => all + residual[i], 0);
  return { accept, caught: left > 0 ? caught / left : 0 };
}

// Probabilities raised to `power` and normalised, with what they leave out as one more entry.
function withRest(probs, power) {
  const rest = Math.max(0, 1 - probs.reduce((a, b) => a + b, 0));
  const raised = [...probs, rest].map((prob) => prob ** power);
  const total = raised.reduce((a, b) => a + b, 0);
  return raised.map((prob) => prob / total);
}

// The capped geometric series over accepted lengths (theorem 12 of arXiv 2603.03251), rounded to whole branches.
export function geometric(lookahead, budget, acceptance, exponent) {
  const rate = Math.min(0.999, Math.max(0.001, acceptance));
  const weights = Array.from({ length: lookahead + 1 }, (_, accepted) => rate ** (accepted / (1 + exponent)));
  weights[lookahead] *= (1 - rate) ** (-1 / (1 + exponent));
  const total = weights.reduce((a, b) => a + b, 0);
  const exact = weights.map((weight) => (budget * weight) / total);
  const counts = exact.map(Math.floor);
  const byRest = exact.map((_, i) => i).sort((a, b) => exact[b] - counts[b] - (exact[a] - counts[a]) || a - b);
  for (let i = 0, left = budget - counts.reduce((a, b) => a + b, 0); i < left; i += 1) counts[byRest[i]] += 1;
  return counts;
}
