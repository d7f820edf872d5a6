// The bundled pair in this page: starts the two workers, loads the models, and runs requests one after the other.

import { loadJson } from "./load.js";
import { Tokenizer } from "./tokenizer.js";
import { now } from "./round.js";
import { TraceMaker } from "./trace.js";

// What keeps this page from running them, in words; null: nothing.
export function obstacle() {
  if (location.protocol === "file:") return "This page was opened from a file, and browsers let such a page read no other file. Serve the folder of the site instead: run `python -m http.server` in it, and open http://localhost:8000/try-it.html.";
  if (typeof Worker === "undefined") return "This browser starts no workers, in which the models would run: take a newer browser, or allow scripts to start workers.";
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD)) return "This browser knows no WebAssembly with SIMD: take Firefox 89, Chrome 91, Safari 16.4 or newer.";
  return null;
}

// The smallest module that needs SIMD: a function that makes a vector and drops it.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 9, 1, 7, 0, 65, 0, 253, 15, 26, 11);

export class PageEngine {
  // folder: address of what `make docs` made (docs/hooks/in_page.py).
  constructor(folder) {
    this.folder = folder;
    this.workers = {};
    this.running = null;
  }

  // onBytes(done, all): of both models together. Fails with words.
  async load(onBytes) {
    const channel = new MessageChannel();
    const at = (name) => new URL(name, this.folder).href;
    const done = { target: 0, draft: 0 };
    const all = { target: 0, draft: 0 };
    const started = (name, port) => new Promise((loaded, fail) => {
      const worker = (this.workers[name] = new Worker(at(`${name}_worker.js`)));
      worker.onerror = (event) => { event.preventDefault(); this.#fail(name, event.message || "its script could not be loaded", fail); };
      worker.onmessage = ({ data }) => {
        if (data.error) this.#fail(name, data.error, fail);
        else if (data.loaded) loaded(data.loaded);
        else if (data.bytes !== undefined) {
          [done[name], all[name]] = [data.bytes, data.of];
          onBytes(done.target + done.draft, all.target + all.draft);
        } else this.running?.heard(data);
      };
      worker.postMessage({ do: "load", address: at(`${name}.bin`), kernel: at("kernel.wasm"), port }, [port]);
    });
    try {
      const [tokenizer, target] = await Promise.all([loadJson(at("tokenizer.json")), started("target", channel.port1), started("draft", channel.port2)]);
      this.tokenizer = new Tokenizer(tokenizer);
      this.context = target.config.context;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  // order: {strategy, fields: {k, f, saguaro_c}, prompt, max_tokens, temperature, seed}. onRound(trace, text) after each.
  // Answers the trace. Fails with words.
  async run(order, onRound = () => {}) {
    if (this.running) throw new Error("a run is going on: stop it first, or wait for its end");
    const promptIds = this.tokenizer.encodeChat(order.prompt);
    if (promptIds.length >= this.context) throw new Error(`the prompt has ${promptIds.length} tokens, and the context holds ${this.context} with at least one of them generated: shorten it`);
    const { strategy, fields, temperature, seed, max_tokens } = order;
    const maker = new TraceMaker({
      name: strategy, fields, prompt: order.prompt, promptIds, params: { temperature, seed, max_tokens }, origin_s: now(), textOf: (id) => this.tokenizer.textOf(id),
    });
    const text = () => this.tokenizer.decode(maker.request.token_ids);
    const ended = new Promise((done, fail) => {
      this.running = {
        fail,
        heard: ({ prefill, round, ended: reason, at }) => {
          if (prefill) maker.addPrefill(...[prefill[0], prefill[1], prefill[2]]);
          else if (round) {
            maker.addRound(round);
            onRound(maker.trace, text());
          } else if (reason) {
            maker.finish(reason, text(), at);
            done(maker.trace);
          }
        },
      };
    });
    this.workers.target.postMessage({ do: "run", strategy, promptIds, temperature, seed, maxTokens: max_tokens, fields: { k: fields.k, f: fields.f, factor: fields.saguaro_c } });
    return ended.finally(() => { this.running = null; });
  }

  stop() {
    this.workers.target?.postMessage({ do: "stop" });
  }

  close() {
    for (const worker of Object.values(this.workers)) worker.terminate();
    this.workers = {};
  }

  #fail(name, words, fail) {
    const error = new Error(`the ${name}: ${words}`);
    fail(error);
    this.running?.fail(error);
  }
}
