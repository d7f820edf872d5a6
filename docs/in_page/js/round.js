// A request from its prompt to its end: propose, verify, commit, round after round.

import { causal } from "./model.js";
import { largest, lead } from "./sampling.js";
import { verify } from "./verify.js";

const ALTERNATIVES = 8; // likeliest tokens that a trace keeps of each place

// source: what proposes (strategies.js). Yields {record, tokens, closes} for each round: its record as in a trace, what it
// added to the text, and what it tells of the round before.
export const rounds = async function* (model, source, promptIds, { temperature, seed, maxTokens }) {
  const tokens = [...promptIds];
  const { context, vocab, end } = model.config;
  let outcome = null;
  for (let index = 0; ; index++) {
    const start = now();
    const proposal = await source.propose({ tokens, outcome });
    const length = tokens.length;
    const asked = now();
    const logits = model.forward(causal([tokens.at(-1), ...proposal.tokens], length - 1));
    const places = Array.from({ length: proposal.tokens.length + 1 }, (_, place) => logits.subarray(place * vocab, (place + 1) * vocab));
    const { known, ...decided } = verify(places, proposal, { temperature, seed, position: length });
    const verified = now();
    outcome = decided;
    const added = emitted([...proposal.tokens.slice(0, decided.num_accepted), decided.recovery_token], (token, count) => token === end || length - promptIds.length + count >= maxTokens || length + count >= context);
    tokens.push(...added);
    const record = sequenceRound(length, proposal, decided, added.length, alternativesOf(known, proposal, temperature));
    const spans = [["link", "wait for draft", start, asked], ["target", "verify", asked, verified], ...proposal.spans.map(([name, from, to]) => ["draft", name, from, to])];
    const smallestLead = temperature === 0 ? Math.min(...places.slice(0, decided.num_accepted + 1).map(lead)) : null;
    yield { index, record, added, closes: proposal.previous, start_s: start, end_s: now(), spans, smallestLead };
    if (added.at(-1) === end) return "stop";
    if (tokens.length - promptIds.length >= maxTokens || tokens.length >= context) return "length";
  }
};

export function now() {
  return (performance.timeOrigin + performance.now()) / 1000;
}

function emitted(tokens, isLast) {
  const at = tokens.findIndex((token, i) => isLast(token, i + 1));
  return at < 0 ? tokens : tokens.slice(0, at + 1);
}

function sequenceRound(position, { tokens, tokenProbs, origin, cache_hit }, decided, numEmitted, alternatives) {
  return {
    request_id: 0, position, draft_tokens: tokens, draft_probs: tokenProbs, target_probs: decided.target_probs,
    num_accepted: decided.num_accepted, recovery_token: decided.recovery_token, recovery_prob: decided.recovery_prob, num_emitted: numEmitted,
    origin, cache_hit, tree: null, coins: decided.coins ?? null, recovery_coin: decided.recovery_coin ?? null,
    recovery_rank: null, fan_out: null, alternatives, predicted_hit: null,
  };
}

// The likeliest tokens of both at each place. Greedy drafts and certain guesses are drawn from no distribution.
function alternativesOf(known, { probs, raw }, temperature) {
  return known.map((target, place) => {
    const draft = temperature > 0 ? probs?.[place] ?? null : null;
    const before = draft && raw ? raw[place] : null;
    const listed = [target, draft, before].filter(Boolean).flatMap((each) => largest(each, ALTERNATIVES));
    const tokens = [...new Set(listed)].sort((a, b) => a - b);
    const of = (each) => each && tokens.map((token) => each[token]);
    return { tokens, target_probs: of(target), draft_probs: of(draft), draft_raw_probs: of(before) };
  });
}
