// Where draft tokens come from: each strategy answers {tokens, tokenProbs, probs, raw, origin, cache_hit, previous, spans}.

const NONE = { tokens: [], tokenProbs: [], probs: null, raw: null, cache_hit: null, previous: null, spans: [] };
const LONGEST = 3; // n-gram of prompt lookup

export const STRATEGIES = {
  autoregressive: () => ({ async propose() { return { ...NONE, origin: "none" }; } }),
  sync_chain: ({ draft }) => draft,
  async_tree: ({ draft }) => draft,
  prompt_lookup: ({ k }) => promptLookup(k),
};

// What followed the text's last few tokens before follows them again: certain guesses, without a model.
function promptLookup(k) {
  const ends = new Map(); // where each n-gram that something follows ended last
  let read = 1;
  return {
    async propose({ tokens }) {
      for (; read < tokens.length; read++) {
        for (let size = 1; size <= Math.min(LONGEST, read); size++) ends.set(tokens.slice(read - size, read).join(), read);
      }
      for (let size = Math.min(LONGEST, tokens.length); size >= 1; size--) {
        const end = ends.get(tokens.slice(-size).join());
        if (end) {
          const guessed = tokens.slice(end, end + k);
          return { ...NONE, tokens: guessed, tokenProbs: guessed.map(() => 1), origin: "custom" };
        }
      }
      return { ...NONE, origin: "none" };
    },
  };
}

const PATIENCE_MS = 60_000;

// The draft in its own worker, at the other end of `port`.
export class RemoteDraft {
  constructor(port) {
    this.port = port;
    this.number = 0;
    this.waiting = null;
    port.onmessage = ({ data }) => this.waiting?.(data);
  }

  async begin(promptIds, order) {
    const { span } = await this.#ask({ begin: { promptIds, order } });
    return span;
  }

  // outcome: of the round before, null in the first one.
  async propose({ outcome }) {
    const { proposal, spans } = await this.#ask({ outcome });
    return { ...proposal, spans };
  }

  #ask(message) {
    const number = ++this.number;
    return new Promise((done, fail) => {
      const timer = setTimeout(() => fail(new Error(`the draft's worker gave no answer for ${PATIENCE_MS / 1000} s: load the page again`)), PATIENCE_MS);
      this.waiting = (answer) => {
        if (answer.number !== number) return; // to a question of a run that was stopped
        clearTimeout(timer);
        if (answer.error) fail(new Error(`the draft: ${answer.error}`));
        else done(answer);
      };
      this.port.postMessage({ number, ...message });
    });
  }
}
