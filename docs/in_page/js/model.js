// A Llama forward in float32: rows of tokens in, logits out. Products are the kernel's (docs/in_page/kernel.py), the rest is
// here. Nothing of a row depends on the rows beside it, so speculative text is the text without speculation, bit for bit.

export const MOST_ROWS = 32; // at once

// Bytes that a model needs behind its tensors. branchSlots: places in the KV cache behind those of the text.
export function scratchOf({ config, beyond }, branchSlots) {
  const slots = config.context + beyond + branchSlots;
  const rows = MOST_ROWS * widths(config).reduce((sum, width) => sum + width, 0);
  return 4 * (rows + slots + 2 * slots * config.layers * config.kvHeads * config.headDim) + 64;
}

function widths({ hidden, heads, kvHeads, headDim, mlp, vocab }) {
  return [hidden, hidden, (heads + 2 * kvHeads) * headDim, heads * headDim, 2 * mlp, mlp, vocab];
}

export class Model {
  constructor({ head, memory, kernel, free }, branchSlots) {
    const { config, places } = head;
    Object.assign(this, { config, kernel, places });
    this.textSlots = config.context + head.beyond;
    const slots = this.textSlots + branchSlots;
    let next = free;
    const floats = (place, count) => new Float32Array(memory.buffer, place, count);
    const reserved = (count, width = 1) => {
      const made = { place: next, width, data: floats(next, count * width) };
      next += 16 * Math.ceil((count * width) / 4);
      return made;
    };
    [this.hidden, this.normed, this.qkv, this.attended, this.gateUp, this.gated, this.logits] = widths(config).map((width) => reserved(MOST_ROWS, width));
    this.scores = reserved(slots);
    this.layers = Array.from({ length: config.layers }, () => ({ keys: reserved(slots, config.kvHeads * config.headDim), values: reserved(slots, config.kvHeads * config.headDim) }));
    this.embedding = new Uint16Array(memory.buffer, places.embedding, config.vocab * config.hidden);
    [this.cos, this.sin] = ["cos", "sin"].map((name) => floats(places[name], (this.textSlots * config.headDim) / 2));
    this.norms = new Map(Object.keys(places).filter((name) => name.includes("norm")).map((name) => [name, floats(places[name], config.hidden)]));
  }

  // rows: {token, position, slot, prefix, from}: a row's K/V is written to `slot` of the KV cache, and it sees the slots
  // 0 .. prefix - 1 and from .. slot. Answers the logits of the last `wanted` rows, one after the other.
  forward(rows, wanted = rows.length) {
    const { vocab } = this.config;
    const answers = new Float32Array(wanted * vocab);
    for (let first = 0; first < rows.length; first += MOST_ROWS) {
      const some = rows.slice(first, first + MOST_ROWS);
      this.#blocks(some);
      const skipped = Math.max(0, rows.length - wanted - first);
      if (skipped >= some.length) continue;
      this.#norm("norm", some.length);
      this.#product("embedding", this.normed, this.logits, some.length, skipped);
      answers.set(this.logits.data.subarray(skipped * vocab, some.length * vocab), (first + skipped - (rows.length - wanted)) * vocab);
    }
    return answers;
  }

  #blocks(rows) {
    rows.forEach(({ token }, row) => this.#embed(token, row));
    for (let layer = 0; layer < this.config.layers; layer++) {
      this.#norm(`${layer}.norm1`, rows.length);
      this.#product(`${layer}.qkv`, this.normed, this.qkv, rows.length);
      rows.forEach((own, row) => this.#rotateAndKeep(layer, own, row));
      rows.forEach((own, row) => this.#attend(layer, own, row));
      this.#product(`${layer}.out`, this.attended, this.normed, rows.length);
      this.#add(rows.length);
      this.#norm(`${layer}.norm2`, rows.length);
      this.#product(`${layer}.gateUp`, this.normed, this.gateUp, rows.length);
      this.#gate(rows.length);
      this.#product(`${layer}.down`, this.gated, this.normed, rows.length);
      this.#add(rows.length);
    }
  }

  // The kernel's rows are of four bytes a number and stand one after the other.
  #product(name, from, to, count, first = 0) {
    let row = first;
    const run = (kernel) => kernel(this.places[name], to.width, from.width / 8, 4 * from.width, to.place + 4 * row * to.width, 4 * to.width, from.place + 4 * row * from.width);
    for (; row + 4 <= count; row += 4) run(this.kernel.rows4);
    for (; row < count; row++) run(this.kernel.rows1);
  }

  // bfloat16 is the upper half of a float32; each eight stand in the order 0 4 1 5 2 6 3 7.
  #embed(token, row) {
    const { hidden } = this.config;
    const bits = new Uint32Array(this.hidden.data.buffer, this.hidden.place + 4 * row * hidden, hidden);
    for (let i = 0; i < hidden; i++) bits[(i & ~7) + ((i & 7) >> 1) + 4 * (i & 1)] = this.embedding[token * hidden + i] << 16;
  }

  #norm(name, count) {
    const { hidden, eps } = this.config;
    const weight = this.norms.get(name);
    const [x, y] = [this.hidden.data, this.normed.data];
    for (let at = 0; at < count * hidden; at += hidden) {
      let squares = 0;
      for (let i = 0; i < hidden; i++) squares += x[at + i] * x[at + i];
      const scale = 1 / Math.sqrt(squares / hidden + eps);
      for (let i = 0; i < hidden; i++) y[at + i] = x[at + i] * scale * weight[i];
    }
  }

  #add(count) {
    const [sum, added] = [this.hidden.data, this.normed.data];
    for (let i = 0; i < count * this.config.hidden; i++) sum[i] += added[i];
  }

  #gate(count) {
    const { mlp } = this.config;
    const [both, out] = [this.gateUp.data, this.gated.data];
    for (let row = 0; row < count; row++) {
      for (let i = 0; i < mlp; i++) {
        const gate = both[2 * row * mlp + i];
        out[row * mlp + i] = (gate / (1 + Math.exp(-gate))) * both[(2 * row + 1) * mlp + i];
      }
    }
  }

  // Queries and keys turn by their position; keys and values go into the cache.
  #rotateAndKeep(layer, { position, slot }, row) {
    const { heads, kvHeads, headDim } = this.config;
    const half = headDim / 2;
    const data = this.qkv.data;
    const start = row * this.qkv.width;
    for (let head = 0; head < heads + kvHeads; head++) {
      const at = start + head * headDim;
      for (let i = 0; i < half; i++) {
        const [cos, sin] = [this.cos[position * half + i], this.sin[position * half + i]];
        const [low, high] = [data[at + i], data[at + half + i]];
        data[at + i] = low * cos - high * sin;
        data[at + half + i] = high * cos + low * sin;
      }
    }
    const kv = kvHeads * headDim;
    const keys = start + heads * headDim;
    this.layers[layer].keys.data.set(data.subarray(keys, keys + kv), slot * kv);
    this.layers[layer].values.data.set(data.subarray(keys + kv, keys + 2 * kv), slot * kv);
  }

  #attend(layer, { slot, prefix, from }, row) {
    const { heads, kvHeads, headDim } = this.config;
    const { keys, values } = this.layers[layer];
    const scores = this.scores;
    const stride = 4 * kvHeads * headDim;
    const seen = prefix + slot + 1 - from;
    // what a row sees stands in at most two pieces of the cache: [first slot, how many, place among the scores]
    const pieces = [[0, prefix, 0], [from, slot + 1 - from, prefix]].filter(([, count]) => count > 0);
    const scale = 1 / Math.sqrt(headDim);
    for (let head = 0; head < heads; head++) {
      const query = this.qkv.place + 4 * (row * this.qkv.width + head * headDim);
      const offset = 4 * Math.floor((head * kvHeads) / heads) * headDim;
      for (const [first, count, at] of pieces) this.kernel.scores(query, keys.place + first * stride + offset, scores.place + 4 * at, count, stride);
      let best = -Infinity;
      for (let i = 0; i < seen; i++) if (scores.data[i] > best) best = scores.data[i];
      let total = 0;
      for (let i = 0; i < seen; i++) total += scores.data[i] = Math.exp((scores.data[i] - best) * scale);
      const start = row * this.attended.width + head * headDim;
      const out = this.attended.data.subarray(start, start + headDim).fill(0);
      for (const [first, count, at] of pieces) this.kernel.mix(scores.place + 4 * at, values.place + first * stride + offset, this.attended.place + 4 * start, count, stride);
      for (let d = 0; d < headDim; d++) out[d] /= total;
    }
  }
}

// Rows of tokens that follow one another in the text, the first of them at `position`.
export function causal(tokens, position) {
  return tokens.map((token, i) => ({ token, position: position + i, slot: position + i, prefix: position + i, from: position + i }));
}
