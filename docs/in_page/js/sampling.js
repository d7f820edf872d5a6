// From logits to probabilities, and from those to a token.

// The first largest.
export function argmax(numbers) {
  let best = 0;
  for (let i = 1; i < numbers.length; i++) if (numbers[i] > numbers[best]) best = i;
  return best;
}

// By how much the largest leads the second.
export function lead(numbers) {
  let [first, second] = [-Infinity, -Infinity];
  for (const number of numbers) {
    if (number > first) [first, second] = [number, first];
    else if (number > second) second = number;
  }
  return first - second;
}

// temperature 0: the plain softmax, as a trace tells it of greedy text.
export function softmax(logits, temperature) {
  const best = logits[argmax(logits)];
  const probs = new Float32Array(logits.length);
  const divisor = temperature || 1;
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += probs[i] = Math.exp((logits[i] - best) / divisor);
  for (let i = 0; i < probs.length; i++) probs[i] /= total;
  return probs;
}

// The token at which the cumulative sum first exceeds `coin` of the whole; weights need not sum to 1.
export function sample(weights, coin) {
  let total = 0;
  for (const weight of weights) total += weight;
  const threshold = coin * total;
  let sum = 0;
  let last = 0; // where rounding left nothing above the threshold
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] <= 0) continue;
    sum += weights[i];
    last = i;
    if (sum > threshold) return i;
  }
  return last;
}

// The `count` indices of the largest numbers, the largest first, of equal ones the first.
export function largest(numbers, count, without = -1) {
  const best = [];
  for (let i = 0; i < numbers.length; i++) {
    if (i === without || (best.length === count && numbers[i] <= numbers[best[count - 1]])) continue;
    let at = best.length;
    while (at > 0 && numbers[best[at - 1]] < numbers[i]) at--;
    best.splice(at, 0, i);
    if (best.length > count) best.pop();
  }
  return best;
}

// Saguaro sampling: the `fanOut` likeliest tokens, which are prepared as recovery tokens, are drawn less often by `factor`.
export function saguaro(probs, fanOut, factor) {
  if (factor === 1) return probs;
  const scaled = Float32Array.from(probs);
  for (const token of largest(probs, fanOut)) scaled[token] *= factor;
  const total = scaled.reduce((sum, prob) => sum + prob, 0);
  return total > 0 ? scaled.map((prob) => prob / total) : probs;
}
