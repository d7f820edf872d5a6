// What the tests of the model in the page reach: the page's own modules, and requests on a scripted model.

import { Draft } from "./draft.js";
import { rounds } from "./round.js";
import { STRATEGIES } from "./strategies.js";
import { Tokenizer } from "./tokenizer.js";
import { toLines } from "./trace.js";
import { viewData } from "./view_model.js";

export const tokenizer = (json) => new Tokenizer(json);
export const view = viewData;
export const lines = toLines;

// A model of `vocab` tokens whose logits are a table's row for the last two tokens that it sees. It reads them from its
// cache as a real one does, so a tree whose branches saw each other, or a stale slot, would change its law.
export class Scripted {
  constructor(table, vocab) {
    Object.assign(this, { table, vocab, textSlots: 64, slots: [] });
    this.config = { vocab, context: 64, end: -1 };
  }

  forward(rows, wanted = rows.length) {
    const answers = rows.map(({ token, slot, prefix, from }) => {
      this.slots[slot] = token;
      const before = slot > from ? this.slots[slot - 1] : prefix > 0 ? this.slots[prefix - 1] : 0;
      return this.table[before * this.vocab + token];
    });
    return Float32Array.from(answers.slice(rows.length - wanted).flat());
  }
}

// How often each text of `length` tokens came, over seeds from .. from + count - 1; and the lookups among their rounds.
export async function counts({ target, draft, vocab, strategy, fields, temperature, length, from, count }) {
  const prompt = [0, 1, 0, 1];
  const model = new Scripted(target, vocab);
  const drafting = new Draft(new Scripted(draft, vocab));
  const found = new Array(vocab ** length).fill(0);
  const seen = { hits: 0, misses: 0, accepted: 0 };
  for (let seed = from; seed < from + count; seed++) {
    const local = {
      async propose({ outcome }) {
        const proposal = { ...drafting.answer(outcome), spans: [] };
        if (drafting.order.tree) drafting.prepare();
        return proposal;
      },
    };
    drafting.begin(prompt, { temperature, seed, ...fields, tree: strategy === "async_tree" });
    model.forward(prompt.slice(0, -1).map((token, i) => ({ token, position: i, slot: i, prefix: i, from: i })), 0);
    const tokens = [];
    for await (const { added, record } of rounds(model, STRATEGIES[strategy]({ draft: local, k: fields.k }), prompt, { temperature, seed, maxTokens: length })) {
      tokens.push(...added);
      seen.hits += record.cache_hit === true;
      seen.misses += record.cache_hit === false;
      seen.accepted += record.num_accepted;
    }
    found[tokens.reduce((cell, token) => cell * vocab + token, 0)] += 1;
  }
  return { found, ...seen };
}
