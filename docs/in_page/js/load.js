// Reads a model's file (docs/in_page/convert.py) into the memory of its kernel, telling how far it is.

const PATIENCE_MS = 60_000; // without a byte
const PAGE = 65536;

// Answers {head, memory, kernel, free}: free is the first byte behind the tensors. scratch: bytes wanted there.
export async function loadModel(address, kernelAddress, scratch, onBytes) {
  const kernelBytes = await (await fetched(kernelAddress)).arrayBuffer();
  const response = await fetched(address);
  const chunks = chunksOf(response);
  const { head, rest } = await readHead(chunks);
  const memory = new WebAssembly.Memory({ initial: Math.ceil((head.bytes + scratch(head)) / PAGE) });
  const { instance } = await WebAssembly.instantiate(kernelBytes, { env: { memory } });
  const into = new Uint8Array(memory.buffer);
  let place = 0;
  const put = (chunk) => {
    if (place + chunk.length > head.bytes) throw new Error(`${address} is longer than it says: load the page again`);
    into.set(chunk, place);
    place += chunk.length;
    onBytes(place, head.bytes);
  };
  put(rest);
  for await (const chunk of chunks) put(chunk);
  if (place < head.bytes) throw new Error(`${address} ended early, after ${place} of ${head.bytes} bytes: load the page again`);
  return { head, memory, kernel: instance.exports, free: head.bytes };
}

export async function loadJson(address) {
  return (await fetched(address)).json();
}

async function fetched(address) {
  const response = await limited(fetch(address), address);
  if (!response.ok) throw new Error(`${address} was answered with status ${response.status}: make the site again with \`make docs\``);
  return response;
}

async function* chunksOf(response) {
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await limited(reader.read(), response.url);
    if (done) return;
    yield value;
  }
}

async function readHead(chunks) {
  let seen = new Uint8Array(0);
  for (;;) {
    const { done, value } = await chunks.next();
    if (done) throw new Error("the model's file has no head: make the site again with `make docs`");
    const both = new Uint8Array(seen.length + value.length);
    both.set(seen);
    both.set(value, seen.length);
    seen = both;
    const end = seen.indexOf(10);
    if (end >= 0) return { head: JSON.parse(new TextDecoder().decode(seen.subarray(0, end))), rest: seen.subarray(end + 1) };
  }
}

function limited(promise, what) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`no byte of ${what} for ${PATIENCE_MS / 1000} s: is the network gone? Load the page again.`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
