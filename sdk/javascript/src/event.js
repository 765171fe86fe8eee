// Events: declared by their fields, read lazily from rows.
//
// For each kind straight-line code is generated once, when the module is built: a class whose getters
// read at constant offsets, and decode a text only when it is asked for. The layout of rows is
// described in `wit/policy.wit`.
import { address, decode, list } from "./text.js";

const HEADER = 16;
const slice = "b, w[(o + $) >> 2], w[(o + $ + 4) >> 2]";
const raw = "b.slice(w[(o + $) >> 2], w[(o + $) >> 2] + w[(o + $ + 4) >> 2])";
const pair = (high) => `w[(o + $) >> 2] + ${high} * 4294967296`;

// For each type: its name in the manifest, size, alignment, and the expression that reads it: `b` are
// the batch's bytes, `w` its words of 32 bits, `o` where the row begins, `$` the field's offset.
const TYPES = {
  u8: ["u8", 1, 1, "b[o + $]"],
  u16: ["u16", 2, 2, "b[o + $] | (b[o + $ + 1] << 8)"],
  u32: ["u32", 4, 4, "w[(o + $) >> 2]"],
  i32: ["i32", 4, 4, "w[(o + $) >> 2] | 0"],
  // Numbers, exact below 2^53.
  u64: ["u64", 8, 8, pair("w[(o + $ + 4) >> 2]")],
  i64: ["i64", 8, 8, pair("(w[(o + $ + 4) >> 2] | 0)")],
  boolean: ["u8", 1, 1, "b[o + $] !== 0"],
  text: ["text", 8, 4, `decode(${slice})`],
  texts: ["text", 8, 4, `list(decode(${slice}))`],
  bytes: ["bytes", 8, 4, raw],
  address: ["address", 16, 8, "address(b, o + $)"],
};

/**
 * Lays out the fields of a kind: `{ path: "text", parent: "text? = proc.parent.exe" }`. Returns what
 * the manifest lists, and the class of its events.
 */
export function declare(kind, fields) {
  const listed = [];
  const getters = [];
  let offset = HEADER;
  let bit = 0;
  for (const [attribute, declared] of Object.entries(fields)) {
    const match = /^([a-z0-9]+)(\?)?(?:\s*=\s*([a-z0-9_.]+))?$/.exec(declared);
    const type = match && Object.hasOwn(TYPES, match[1]) && TYPES[match[1]];
    if (!type || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(attribute)) {
      throw new Error(
        `${kind}: field ${attribute}: "${declared}": expected one of ${Object.keys(TYPES).join(", ")}, ` +
          "with ? behind it if it is optional, and = NAME if that is not the attribute's",
      );
    }
    const [name, size, alignment, read] = type;
    offset = Math.ceil(offset / alignment) * alignment;
    let value = read.replaceAll("$", String(offset));
    offset += size;
    if (match[2]) {
      value = `w[(o + 8) >> 2] & ${(1 << bit) >>> 0} ? undefined : (${value})`;
      bit += 1;
    }
    listed.push(`${match[3] ?? attribute}:${name}${match[2] ?? ""}`);
    getters.push(`get ${attribute}() { const { b, w, o } = this; return ${value}; }`);
  }
  const code = `return class extends Event { ${getters.join("\n")} };`;
  return { listed, Class: new Function("Event", "decode", "list", "address", code)(Event, decode, list, address) };
}

/** What every event has. */
class Event {
  constructor(bytes, words, offset) {
    this.b = bytes;
    this.w = words;
    this.o = offset;
  }

  /** When it happened, in nanoseconds on the kernel's monotonic clock; exact below 2^53 (104 days). */
  get timeNs() {
    return this.w[this.o >> 2] + this.w[(this.o + 4) >> 2] * 4294967296;
  }

  /** A text was longer than what the agent keeps. */
  get cut() {
    return (this.b[this.o + 15] & 1) !== 0;
  }

  /** A number was larger than its field and stands at its maximum. */
  get clipped() {
    return (this.b[this.o + 15] & 2) !== 0;
  }

  /** It happened before an event that was delivered earlier. */
  get late() {
    return (this.b[this.o + 15] & 4) !== 0;
  }
}
