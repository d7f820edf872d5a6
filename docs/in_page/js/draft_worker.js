// The worker that holds the draft. The target's worker asks it over a port of their own, so that both compute at once.

import { Draft, branchSlots } from "./draft.js";
import { loadModel } from "./load.js";
import { Model, scratchOf } from "./model.js";

export function startDraftWorker(scope) {
  let draft = null;
  const now = () => (performance.timeOrigin + performance.now()) / 1000; // one clock for both workers

  async function load({ address, kernel, port }) {
    const loaded = await loadModel(address, kernel, (head) => scratchOf(head, branchSlots()), (bytes, of) => scope.postMessage({ bytes, of }));
    draft = new Draft(new Model(loaded, branchSlots()));
    port.onmessage = ({ data }) => handle(port, data);
    scope.postMessage({ loaded: loaded.head });
  }

  // Every message is answered with {number, ..} or {number, error}.
  let spans = [];
  function handle(port, { number, begin, outcome }) {
    try {
      const start = now();
      if (begin) {
        draft.begin(begin.promptIds, begin.order);
        spans = [];
        port.postMessage({ number, span: ["prefill", start, now()] });
        return;
      }
      const proposal = draft.answer(outcome);
      if (proposal.origin !== "hit") spans.push([proposal.origin, start, now()]);
      port.postMessage({ number, proposal, spans });
      spans = [];
      if (!draft.order.tree) return;
      const began = now();
      draft.prepare(); // the answer is on its way: the target verifies meanwhile
      spans.push(["tree", began, now()]);
    } catch (error) {
      port.postMessage({ number, error: error.message });
    }
  }

  scope.onmessage = ({ data }) => {
    load(data).catch((error) => scope.postMessage({ error: error.message }));
  };
}
