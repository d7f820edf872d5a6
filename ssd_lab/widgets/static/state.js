// What is selected, shared by all views: a run, a request, a step (one of its rounds) and a place in that round.
// Places: "draft:i" a drafted token, "recovery" the target's own token, "branch:n:d" node d of prepared branch n,
// "node:i" a node of a verified tree.

export function createApp(data, selection) {
  const listeners = new Set();
  const app = {
    data,
    selected: { run: 0, request: null, step: 0, place: null },
    hovered: null,
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    tell(reason) {
      for (const listener of listeners) listener(reason);
    },
    get run() {
      return this.data.runs[this.selected.run];
    },
    get request() {
      const run = this.run;
      return run?.requests.find((request) => request.id === this.selected.request) ?? run?.requests[0];
    },
    get steps() {
      return this.request?.steps ?? [];
    },
    get step() {
      return this.steps[this.selected.step];
    },
    select(patch) {
      const next = settle(this.data, { ...this.selected, place: null, ...patch });
      if (JSON.stringify(next) === JSON.stringify(this.selected)) return;
      this.selected = next;
      this.hovered = null;
      this.tell("selection");
    },
    hover(place) {
      if (place === this.hovered) return;
      this.hovered = place;
      this.tell("hover");
    },
    replace(fresh, patch = {}) {
      this.data = fresh;
      this.selected = settle(fresh, { ...this.selected, ...patch });
      this.tell("data");
    },
  };
  app.selected = settle(data, { ...app.selected, ...data.opening, ...selection });
  return app;
}

// A selection that exists in the data: what is out of range moves to the nearest that is there.
function settle(data, wanted) {
  const run = Math.min(Math.max(0, wanted.run), Math.max(0, data.runs.length - 1));
  const requests = data.runs[run]?.requests ?? [];
  const request = requests.find((one) => one.id === wanted.request) ?? requests[0];
  const last = Math.max(0, (request?.steps.length ?? 0) - 1);
  return {
    run,
    request: request?.id ?? null,
    step: Math.min(Math.max(0, wanted.step), last),
    place: wanted.place ?? null,
  };
}

// Select a round of a run by its index: of the selected request, or of one that took part in it.
export function chooseRound(app, run, round) {
  const requests = app.data.runs[run].requests;
  const own = requests.find((request) => request.id === app.request?.id && request.steps.some((step) => step.round === round));
  const request = own ?? requests.find((one) => one.steps.some((step) => step.round === round));
  if (request) app.select({ run, request: request.id, step: request.steps.findIndex((step) => step.round === round) });
}

// The round of another run that covers the same place in the text.
export function stepAt(request, position) {
  const at = request.steps.findIndex((step) => position < step.position + step.num_emitted);
  return at < 0 ? request.steps.length - 1 : at;
}

// What a step's drafted tokens came from, in words.
export const ORIGINS = {
  hit: "prepared ahead, out of the cache",
  jit: "drafted now, while the target waited",
  fast: "prepared for another token (fast fallback)",
  draft: "drafted in turn",
  tree: "a path of the draft's tree",
  custom: "guessed by the strategy",
  none: "none",
};

export const SIGNS = { accepted: "✓", rejected: "✗", untested: "·" }; // of verdicts

export function verdict(step, place) {
  if (place < step.num_accepted) return "accepted";
  return place === step.num_accepted ? "rejected" : "untested";
}

// Of a tree that was verified: each node's parent (-1 the text), and the accepted nodes from the text down.
export function treeParents(tree) {
  const parents = tree.tokens.map((_, node) => node - 1);
  for (const [start, , parent] of tree.branches) parents[start] = parent;
  return parents;
}

export function acceptedPath(step) {
  const parents = treeParents(step.tree);
  const path = [-1];
  for (const kept of step.draft_tokens.slice(0, step.num_accepted)) {
    const next = parents.findIndex((parent, node) => parent === path.at(-1) && step.tree.tokens[node] === kept);
    if (next < 0) break;
    path.push(next);
  }
  return path;
}

// Siblings are tried in order until one is kept; what hangs elsewhere is never looked at.
export function nodeVerdict(step, node) {
  const path = acceptedPath(step);
  if (path.includes(node)) return "accepted";
  const at = path.indexOf(treeParents(step.tree)[node]);
  return at >= 0 && (at === path.length - 1 || node < path[at + 1]) ? "rejected" : "untested";
}

// The same place by its node, where a whole tree was verified.
export function placeInTree(step, place) {
  const [kind, number] = (place ?? "").split(":");
  if (kind !== "draft" || !step?.tree?.verified) return place;
  const node = acceptedPath(step)[Number(number) + 1];
  return node === undefined ? place : `node:${node}`;
}

// Why no prepared outcomes can be shown.
export function whyNothingPrepared(app) {
  const { run, request, step } = app;
  if (step.tree?.verified) return "This strategy keeps no speculation cache: the target verified the whole tree.";
  if (!run.cache.lookups && !request.steps.some((other) => other.tree)) return "This strategy prepares nothing ahead: there is no speculation cache.";
  if (step !== request.steps.at(-1)) return "What was prepared in this round was not recorded.";
  return request.finish_reason === null
    ? "What is prepared in this round will be known with the next one."
    : "The text ended with this round: what was being prepared for the next one was never needed and was not recorded.";
}

export function isBonus(step) {
  return step.num_accepted === step.draft_tokens.length;
}

export function recoveryWord(step) {
  if (!step.draft_tokens.length) return "target's token";
  return isBonus(step) ? "bonus token" : "recovery token";
}

export function acceptChance(target, draft) {
  return draft <= target ? 1 : target / draft;
}
