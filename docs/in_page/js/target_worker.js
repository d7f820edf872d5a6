// The worker that holds the target. It runs a request's rounds and tells the page of each.

import { loadModel } from "./load.js";
import { causal, Model, scratchOf } from "./model.js";
import { now, rounds } from "./round.js";
import { RemoteDraft, STRATEGIES } from "./strategies.js";

export function startTargetWorker(scope) {
  let model = null;
  let draft = null;
  let stopped = false;

  async function load({ address, kernel, port }) {
    const loaded = await loadModel(address, kernel, (head) => scratchOf(head, 0), (bytes, of) => scope.postMessage({ bytes, of }));
    model = new Model(loaded, 0);
    draft = new RemoteDraft(port);
    scope.postMessage({ loaded: loaded.head });
  }

  // order: {strategy, fields: {k, f, factor}, promptIds, temperature, seed, maxTokens}
  async function run({ strategy, fields, promptIds, temperature, seed, maxTokens }) {
    stopped = false;
    const source = STRATEGIES[strategy]({ draft, k: fields.k });
    const begun = source === draft ? draft.begin(promptIds, { temperature, seed, ...fields, tree: strategy === "async_tree" }) : null;
    begun?.catch(() => {}); // told below, where it is waited for
    const start = now();
    model.forward(causal(promptIds.slice(0, -1), 0), 0);
    scope.postMessage({ prefill: ["target", start, now()] });
    const span = await begun;
    if (span) scope.postMessage({ prefill: ["draft", span[1], span[2]] });
    const request = rounds(model, source, promptIds, { temperature, seed, maxTokens });
    for (;;) {
      const { done, value } = await request.next();
      if (done) return value;
      scope.postMessage({ round: value });
      await breath(); // a wish to stop is heard between rounds
      if (stopped) return "cancelled";
    }
  }

  scope.onmessage = ({ data }) => {
    if (data.do === "stop") stopped = true;
    else if (data.do === "load") load(data).catch((error) => scope.postMessage({ error: error.message }));
    else if (data.do === "run") {
      run(data).then((reason) => scope.postMessage({ ended: reason, at: now() }), (error) => scope.postMessage({ error: error.message }));
    }
  };
}

// Lets messages in that have come meanwhile.
function breath() {
  return new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => { port1.close(); done(); };
    port2.postMessage(null);
  });
}
