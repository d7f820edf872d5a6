// Which draft tokens the target keeps, and the token that it adds (decoding/acceptance.py).

import { PURPOSE, uniform } from "./random.js";
import { argmax, sample, softmax } from "./sampling.js";

// places: the target's logits after the text and after each draft token. proposal: {tokens, probs}: what each token was
// drawn from, null where it is a certain guess. Answers what a trace records of it.
export function verify(places, proposal, { temperature, seed, position }) {
  const known = places.map((logits) => softmax(logits, temperature)); // the target's probabilities
  const decide = temperature > 0 ? sampled : greedy;
  const { accepted, recovery, ...coins } = decide(places, known, proposal, seed, position);
  return {
    num_accepted: accepted,
    recovery_token: recovery,
    recovery_prob: known[accepted][recovery],
    target_probs: proposal.tokens.map((token, place) => known[place][token]),
    known,
    ...coins,
  };
}

function greedy(places, known, { tokens }) {
  const choices = places.map(argmax);
  let accepted = 0;
  while (accepted < tokens.length && tokens[accepted] === choices[accepted]) accepted++;
  return { accepted, recovery: choices[accepted] };
}

// A draft token x stays with probability min(1, p(x) / q(x)); after a rejection the token comes from max(p - q, 0). A certain
// guess stays if it is what the target draws itself.
function sampled(places, known, { tokens, probs }, seed, position) {
  const coins = tokens.map((_, place) => uniform(seed, position + place, PURPOSE.accept));
  const own = (place) => sample(known[place], uniform(seed, position + place, PURPOSE.recovery));
  let accepted = 0;
  while (accepted < tokens.length && keeps(known[accepted], tokens[accepted], probs?.[accepted], coins[accepted], () => own(accepted))) accepted++;
  let recovery = own(accepted);
  if (accepted < tokens.length && probs && probs[accepted][tokens[accepted]] !== 1) {
    const residual = known[accepted].map((p, token) => Math.max(p - probs[accepted][token], 0));
    if (residual.some((weight) => weight > 0)) recovery = sample(residual, uniform(seed, position + accepted, PURPOSE.recovery));
  }
  return { accepted, recovery, coins: probs ? coins : null, recovery_coin: uniform(seed, position + accepted, PURPOSE.recovery) };
}

function keeps(target, token, draft, coin, own) {
  return draft && draft[token] !== 1 ? coin * draft[token] < target[token] : token === own();
}
