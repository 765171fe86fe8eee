// Texts: the engine has no TextDecoder.

/** The UTF-8 text at `start` in `bytes`. Valid by promise of the agent. */
export function decode(bytes, start, length) {
  const end = start + length;
  let text = "";
  // Whole pieces of ASCII at once; what is not ASCII character by character.
  for (let at = start; at < end; ) {
    let stop = at;
    const most = Math.min(end, at + 4096);
    while (stop < most && bytes[stop] < 0x80) stop += 1;
    if (stop > at) {
      text += String.fromCharCode.apply(null, bytes.subarray(at, stop));
      at = stop;
      continue;
    }
    const first = bytes[at];
    const more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    let code = first & (0x3f >> more);
    for (let next = 1; next <= more; next += 1) code = (code << 6) | (bytes[at + next] & 0x3f);
    text += String.fromCodePoint(code);
    at += more + 1;
  }
  return text;
}

/** Several texts, each of which ends with a NUL. */
export function list(text) {
  const parts = text.split("\0");
  parts.pop();
  return parts;
}

/** The address in the 16 bytes at `start`, as people write it. */
export function address(bytes, start) {
  const words = [];
  for (let at = start; at < start + 16; at += 2) words.push((bytes[at] << 8) | bytes[at + 1]);
  if (words.slice(0, 5).every((word) => word === 0) && words[5] === 0xffff) {
    return bytes.subarray(start + 12, start + 16).join(".");
  }
  // The longest run of at least two zeros is left out, the first of equal ones (RFC 5952).
  let [from, longest] = [-1, 1];
  for (let at = 0, run = 0; at < 8; at += 1) {
    run = words[at] === 0 ? run + 1 : 0;
    if (run > longest) [from, longest] = [at - run + 1, run];
  }
  const hex = (part) => part.map((word) => word.toString(16)).join(":");
  if (from < 0) return hex(words);
  return `${hex(words.slice(0, from))}::${hex(words.slice(from + longest))}`;
}

/** Labels as the agent takes them. */
export const texts = (labels) => Object.entries(labels).map(([name, value]) => [name, String(value)]);
