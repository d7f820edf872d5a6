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
  app.selected = settle(data, { ...app.selected, ...selection });
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

// The round of another run that covers the same place in the text.
export function stepAt(request, position) {
  const at = request.steps.findIndex((step) => position < step.position + step.num_emitted);
  return at < 0 ? request.steps.length - 1 : at;
}

// What a step's drafted tokens came from, in words.
export const ORIGINS = {
  hit: "from the cache (hit)",
  jit: "fallback: drafted while the target waited",
  fast: "fallback: a prepared branch for another token",
  draft: "drafted in turn",
  custom: "the strategy's own guess",
  none: "nothing was drafted",
};

export function verdict(step, place) {
  if (place < step.num_accepted) return "accepted";
  return place === step.num_accepted ? "rejected" : "untested";
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
