// The trace of a run made in the page, in the format of ssd_lab.trace: what `Trace.save` writes and `load_trace` reads.

export const SCHEMA_VERSION = 1;

export class TraceMaker {
  // origin_s: the moment from which the trace's seconds count.
  constructor({ name, fields, prompt, promptIds, params, origin_s, textOf }) {
    Object.assign(this, { origin_s, textOf });
    this.trace = {
      meta: {
        strategy: { name, ...fields }, exact: true, bit_exact: true, device: "this browser", dtype: "float32",
        target: "the bundled target", draft: "the bundled draft", token_texts: {}, ranked_candidates: name === "async_tree" ? 64 : null,
      },
      requests: [{
        request_id: 0, prompt, prompt_ids: promptIds, token_ids: [], text: "", finish_reason: null,
        arrival_s: 0, first_token_s: null, end_s: null, params, admitted_s: 0,
      }],
      prefills: [],
      rounds: [],
    };
  }

  get request() {
    return this.trace.requests[0];
  }

  addPrefill(lane, start, end) {
    this.trace.prefills.push(this.#activity([lane, "prefill", start, end]));
  }

  // One of `rounds` (round.js).
  addRound({ index, record, added, closes, start_s, end_s, spans, smallestLead }) {
    const { trace, request } = this;
    if (closes && trace.rounds.length) Object.assign(trace.rounds.at(-1).sequences[0], closes);
    trace.rounds.push({
      index, start_s: start_s - this.origin_s, end_s: end_s - this.origin_s, sequences: [record],
      activities: spans.map((span) => this.#activity(span)), preparation_s: 0,
    });
    request.token_ids.push(...added);
    request.first_token_s ??= end_s - this.origin_s;
    if (smallestLead !== null) trace.meta.smallest_lead = Math.min(smallestLead, trace.meta.smallest_lead ?? Infinity);
    const trees = closes ? closes.tree.tokens : [];
    for (const id of [...trees, ...record.draft_tokens, record.recovery_token, ...record.alternatives.flatMap(({ tokens }) => tokens)]) trace.meta.token_texts[id] ??= this.textOf(id);
  }

  finish(reason, text, end_s) {
    Object.assign(this.request, { finish_reason: reason, text, end_s: end_s - this.origin_s });
  }

  #activity([lane, name, start, end]) {
    return { lane, name, start_s: start - this.origin_s, end_s: end - this.origin_s };
  }
}

export function toLines({ meta, requests, prefills, rounds }) {
  const lines = [
    { kind: "trace", schema_version: SCHEMA_VERSION, meta },
    ...requests.map((request) => ({ kind: "request", ...request })),
    ...prefills.map((prefill) => ({ kind: "prefill", ...prefill })),
    ...rounds.map((round) => ({ kind: "round", ...round })),
    { kind: "end", requests: requests.length, prefills: prefills.length, rounds: rounds.length },
  ];
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}
