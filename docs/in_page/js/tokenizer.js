// Text to token ids and back: byte-level pair encoding, as tokenizer.json describes it.

// Each digit stands alone; then words with the space before them, numbers, signs, spaces.
const SPACE = "\\t\\n\\v\\f\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const DIGITS = /\p{N}|\P{N}+/gu;
const PIECES = new RegExp(`'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${SPACE}\\p{L}\\p{N}]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`, "gu");

export class Tokenizer {
  constructor({ pieces, merges, special }) {
    this.special = new Map(Object.entries(special));
    this.ids = new Map(pieces.map((piece, id) => [piece, id]));
    this.ranks = new Map(merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
    this.letters = byteLetters();
    const bytes = new Map(this.letters.map((letter, byte) => [letter, byte]));
    this.bytes = pieces.map((piece) => (this.special.has(piece) ? null : Uint8Array.from(piece, (letter) => bytes.get(letter))));
    this.pieces = pieces;
    this.known = new Map(); // of words that were met
  }

  encode(text) {
    const names = [...this.special.keys()].map((name) => name.replace(/[|\\{}()[\]^$+*?.]/g, "\\$&"));
    return text.split(new RegExp(`(${names.join("|")})`)).flatMap((part) => this.special.get(part) ?? this.#plain(part));
  }

  // What the user says as the model saw it in training, up to where the answer begins.
  encodeChat(content) {
    return this.encode(`<|im_start|>user\n${content}<|im_end|>\n<|im_start|>assistant\n`);
  }

  // Special tokens have no text.
  decode(ids) {
    const parts = ids.map((id) => this.bytes[id]).filter(Boolean);
    const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => { joined.set(part, at); return at + part.length; }, 0);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(joined);
  }

  // A token for a reader, special ones by their name.
  textOf(id) {
    return this.bytes[id] ? this.decode([id]) : this.pieces[id];
  }

  #plain(text) {
    return (text.match(DIGITS) ?? []).flatMap((run) => run.match(PIECES) ?? []).flatMap((word) => this.#word(word));
  }

  #word(word) {
    if (!this.known.has(word)) {
      const letters = [...new TextEncoder().encode(word)].map((byte) => this.letters[byte]);
      this.known.set(word, this.#merged(letters).map((piece) => this.ids.get(piece)));
    }
    return this.known.get(word);
  }

  // The pair that training merged first is merged first, until none is left.
  #merged(parts) {
    for (;;) {
      let best = Infinity;
      let at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) return parts;
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
  }
}

// The letter that stands for each byte in a piece: itself where it can be seen, else one from 256 on.
function byteLetters() {
  let next = 256;
  const seen = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(seen(byte) ? byte : next++));
}
