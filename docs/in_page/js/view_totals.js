// What is told of all rounds together: acceptance, the hit rate of other fan-outs, and rounds worth opening first.

import { short } from "./view_numbers.js";

export function acceptanceView(steps, sampled) {
  const rows = [];
  for (const step of steps) {
    for (let place = 0; place < Math.min(step.num_accepted + 1, step.draft_tokens.length); place++) {
      const row = (rows[place] ??= { tested: 0, accepted: 0, chances: [] });
      row.tested += 1;
      row.accepted += place < step.num_accepted ? 1 : 0;
      const [p, q] = [step.target_probs[place], step.draft_probs[place]];
      if (sampled) row.chances.push(q <= p ? 1 : p / q);
    }
  }
  const sum = (name) => rows.reduce((total, row) => total + row[name], 0);
  return {
    by_position: rows.map(({ tested, accepted, chances }) => ({
      tested, accepted, observed: short(accepted / tested), expected: chances.length ? short(total(chances) / chances.length) : null,
    })),
    by_request: steps.length ? [{ request: 0, rounds: steps.length, tokens_per_round: short(total(steps.map((step) => step.num_accepted + 1)) / steps.length) }] : [],
    rate: sum("tested") ? short(sum("accepted") / sum("tested")) : null,
  };
}

// Share of the recorded outcomes that a fan-out of 1, 2, .. at each accepted length would have caught.
export function hitCurve(steps, widest = 16) {
  const ranks = steps.map((step) => step.recovery_rank).filter((rank) => rank !== undefined);
  return ranks.length ? Array.from({ length: widest }, (_, width) => ranks.filter((rank) => rank < width + 1).length / ranks.length) : [];
}

// Factor c and exponent r of miss rate = c F^-r, fitted to logarithms; a point counts by its misses.
export function powerLaw(curve) {
  const points = curve.map((rate, i) => [i + 1, 1 - rate]).filter(([, missed]) => missed > 0);
  if (new Set(points.map(([, missed]) => missed)).size < 3) return null;
  const weight = total(points.map(([, missed]) => missed));
  const mean = (of) => total(points.map(([width, missed]) => missed * of(Math.log(width), Math.log(missed)))) / weight;
  const [x, y] = [mean((a) => a), mean((_, b) => b)];
  const slope = mean((a, b) => (a - x) * (b - y)) / mean((a) => (a - x) ** 2);
  return [short(Math.exp(y - slope * x)), short(-slope)];
}

const DULL = 4;

// 0 for what shows most: tokens prepared, some kept, one rejected, the outcome prepared too.
function dullness(step) {
  if (!step.draft_tokens.length || step.num_accepted === step.draft_tokens.length) return DULL;
  if (!step.num_accepted || step.branch === null) return step.num_accepted ? 2 : 3;
  return step.origin === "hit" ? 0 : 1;
}

export function opening([run]) {
  const [request] = run.requests;
  const steps = request?.steps ?? [];
  const all = run.acceptance.rate === null ? [] : steps.map(dullness);
  const best = Math.min(DULL, ...all);
  if (best === DULL) return { run: 0, request: request?.id ?? null, step: 0, place: null };
  const step = all.indexOf(best);
  return { run: 0, request: request.id, step, place: `draft:${steps[step].num_accepted}` };
}

export function presets(steps) {
  const found = [];
  const add = (label, place, badness) => {
    const scored = steps.map(badness);
    const best = scored.reduce((at, worth, i) => (worth !== null && (at < 0 || worth < scored[at]) ? i : at), -1);
    if (best >= 0) found.push({ label, request: 0, step: best, place });
  };
  add("longest accept", "recovery", (step) => (step.num_accepted > 1 ? -step.num_accepted : null));
  add("first token rejected", "draft:0", (step) => (step.draft_tokens.length && !step.num_accepted ? 0 : null));
  add("near miss", "recovery", (step) => step.missed_by || null);
  if (!found.some(({ label }) => label === "near miss")) add("cache miss", "recovery", (step) => (step.next_hit === false ? 0 : null));
  return found;
}

function total(numbers) {
  return numbers.reduce((sum, number) => sum + number, 0);
}
