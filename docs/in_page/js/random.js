// Random numbers as a function of (seed, position, purpose), the same as the Python engine's (decoding/random.py): what is
// drawn does not depend on when or by which path it is drawn.

export const PURPOSE = { draft: 1, accept: 2, recovery: 3 };

function mix(x) {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}

// A number between 0 and 1. seed: a whole number.
export function uniform(seed, position, purpose) {
  const bits = BigInt.asUintN(64, BigInt(seed));
  const [low, high] = [Number(bits & 0xffffffffn) | 0, Number(bits >> 32n) | 0];
  let state = mix((low + Math.imul(0x9e3779b9, purpose)) | 0);
  state = mix(state ^ high);
  state = mix((state + Math.imul(position, 0x9e3779b1)) | 0);
  state = mix(((state ^ low) + 0x7f4a7c15) | 0);
  return ((state >>> 9) + 0.5) * 2 ** -23;
}
