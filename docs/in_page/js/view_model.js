// What the views show of a trace: the same as ssd_lab.widgets.view_model makes of it in Python (a test compares the two).

import { caughtBranch, preparedAt, placeView, treeView } from "./view_trees.js";
import { acceptanceView, hitCurve, opening, powerLaw, presets } from "./view_totals.js";
import { short, shorts } from "./view_numbers.js";

export function viewData(name, trace) {
  const runs = [runView(name, trace)];
  return { format: 1, runs, opening: opening(runs) };
}

// One run; also the part that a view of a run that goes on is told, which replaces all that it knew.
export function runView(name, trace) {
  const steps = stepsOf(trace);
  const [record] = trace.requests;
  const temperature = record.params.temperature || 0;
  const curve = hitCurve(steps);
  const request = { id: 0, from_step: 0, prompt: record.prompt, finish_reason: record.finish_reason, temperature, tokens: textTokens(steps), steps };
  return {
    name,
    strategy: trace.meta.strategy,
    exact: trace.meta.exact,
    lossy_reason: null,
    first_round: 0,
    from_round: 0,
    left_out: 0,
    block_size: null, // the page keeps its caches in one piece
    features: null,
    texts: { ...trace.meta.token_texts },
    requests: steps.length ? [request] : [],
    clocks: [measuredClock(trace)],
    presets: presets(steps),
    acceptance: acceptanceView(steps, temperature > 0),
    cache: {
      lookups: steps.filter((step) => step.cache_hit !== null).length,
      hits: steps.filter((step) => step.cache_hit === true).length,
      curve: curve.map(short),
      power_law: powerLaw(curve),
    },
  };
}

function stepsOf(trace) {
  const steps = [];
  for (const round of trace.rounds) {
    const [record] = round.sequences;
    if (steps.length) steps.at(-1).next_hit = record.cache_hit;
    steps.push(stepOf(round.index, record, trace.meta.ranked_candidates));
  }
  return steps;
}

function stepOf(index, record, ranked) {
  const tree = treeView(record);
  const prepared = preparedAt(record, tree);
  const rank = record.recovery_rank;
  const optional = {
    coins: record.coins && shorts(record.coins),
    recovery_coin: record.recovery_coin === null ? null : short(record.recovery_coin),
    recovery_rank: rank,
    beyond_ranked: rank !== null && rank === ranked ? true : null,
    fan_out: record.fan_out,
    alternatives: record.alternatives && record.alternatives.map(placeView),
  };
  return {
    round: index,
    position: record.position,
    draft_tokens: record.draft_tokens,
    draft_probs: shorts(record.draft_probs),
    target_probs: shorts(record.target_probs),
    num_accepted: record.num_accepted,
    recovery_token: record.recovery_token,
    recovery_prob: short(record.recovery_prob),
    num_emitted: record.num_emitted,
    origin: record.origin,
    cache_hit: record.cache_hit,
    next_hit: null,
    tree,
    branch: caughtBranch(record, tree),
    prepared,
    missed_by: rank === null || prepared === null ? null : Math.max(0, rank + 1 - prepared),
    ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== null)),
  };
}

// [token, step, place]: place 0.. of an accepted draft token, -1 the target's own.
function textTokens(steps) {
  return steps.flatMap((step, number) => {
    const kept = step.draft_tokens.slice(0, Math.min(step.num_accepted, step.num_emitted)).map((token, place) => [token, number, place]);
    return step.num_emitted > step.num_accepted ? [...kept, [step.recovery_token, number, -1]] : kept;
  });
}

// As ssd_lab.trace.device_times tells the activities of a round: verification begins when its draft is there.
function onDevices({ activities, start_s }) {
  const verify = activities.find(({ name }) => name === "verify");
  if (!verify) return activities;
  const answers = ({ lane, name, start_s: start }) => lane.split(" ")[0] === "draft" && (["draft", "jit", "fast"].includes(name) || (name === "tree" && start < start_s));
  const ends = activities.filter(answers).map(({ end_s }) => end_s);
  const there = ends.length ? Math.max(...ends) : verify.start_s;
  const begins = verify.start_s < there && there < verify.end_s ? there : verify.start_s;
  return activities.flatMap((activity) => {
    if (activity === verify) return [...(begins > verify.start_s ? [{ ...verify, name: "wait for draft", end_s: begins }] : []), { ...verify, start_s: begins }];
    if (activity.name !== "wait for draft") return [activity];
    return activity.start_s <= begins ? [{ ...activity, end_s: Math.min(activity.end_s, begins) }] : [];
  });
}

const KINDS = ["verify", "tree", "draft", "prefill"];

function measuredClock(trace) {
  const seconds = (value) => Number(value.toFixed(6));
  const span = ({ lane, name, start_s, end_s }, round) => {
    const waits = name.startsWith("wait");
    const kind = waits ? "wait" : name === "jit" ? "fallback" : KINDS.includes(name) ? name : "other";
    return [waits ? "target" : lane, kind, seconds(start_s), seconds(end_s), round];
  };
  return {
    name: "measured",
    note: `measured on ${trace.meta.device}`,
    rounds: trace.rounds.map(({ start_s, end_s }) => [seconds(start_s), seconds(end_s), []]),
    spans: [...trace.prefills.map((prefill) => span(prefill, -1)), ...trace.rounds.flatMap((round) => onDevices(round).map((activity) => span(activity, round.index)))],
  };
}
