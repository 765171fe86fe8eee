// How much there was lately: sums over a sliding window of the events' own time.

/**
 * A sum over the last `length` seconds, in so many parts. It slides by one part at a time: what it
 * covers is between `parts - 1` and `parts` parts long, the newest of which has just begun.
 *
 *     this.failed = new Window(60, 60);
 *     this.failed.add(open.timeNs);
 *     if (this.failed.sum(open.timeNs) > 5) ...
 *
 * Times are those of events (`timeNs`) or of `onTick`. An event that comes late counts in its own part
 * of the time, or not at all if the window has passed it. Sums are exact below 2^53.
 */
export class Window {
  constructor(length, parts) {
    if (!(parts >= 1)) throw new Error(`parts ${parts}: expected at least 1`);
    this.partNs = Math.max(1, Math.floor(Math.round(length * 1e9) / parts));
    // Number of the newest part, counted from the beginning of time.
    this.newest = 0;
    this.parts = new Array(parts).fill(0);
  }

  /** Adds `n` at that time. */
  add(timeNs, n = 1) {
    const part = Math.floor(timeNs / this.partNs);
    this.slide(part);
    if (this.newest - part < this.parts.length) this.parts[part % this.parts.length] += n;
  }

  /** The sum at that time. */
  sum(nowNs) {
    this.slide(Math.floor(nowNs / this.partNs));
    return this.parts.reduce((sum, part) => sum + part, 0);
  }

  /** How much there was per second, at that time. */
  perSecond(nowNs) {
    const covered = (this.parts.length - 1) * this.partNs + (nowNs % this.partNs) + 1;
    return (this.sum(nowNs) * 1e9) / covered;
  }

  /** Whether nothing is in it at that time: then it may be forgotten. */
  isEmpty(nowNs) {
    return this.sum(nowNs) === 0;
  }

  /** Its contents, for `state` or `save`. Windows of the other SDKs have the same. */
  toBytes() {
    const numbers = [this.partNs, this.newest, ...this.parts];
    const words = numbers.flatMap((number) => [number >>> 0, Math.floor(number / 4294967296)]);
    return new Uint8Array(new Uint32Array(words).buffer);
  }

  /** A window with these contents; undefined if they are of one that was made otherwise. */
  static fromBytes(length, parts, bytes) {
    const window = new Window(length, parts);
    if (bytes.length !== 8 * (2 + parts)) return undefined;
    const words = new Uint32Array(Uint8Array.from(bytes).buffer);
    const numbers = [];
    for (let at = 0; at < words.length; at += 2) numbers.push(words[at] + words[at + 1] * 4294967296);
    const [partNs, newest, ...sums] = numbers;
    if (partNs !== window.partNs) return undefined;
    window.newest = newest;
    window.parts = sums;
    return window;
  }

  /** Makes this part the newest, if it is newer. */
  slide(part) {
    if (part <= this.newest) return;
    const { length } = this.parts;
    for (let gone = 0; gone < Math.min(part - this.newest, length); gone += 1) {
      this.parts[(part - gone) % length] = 0;
    }
    this.newest = part;
  }
}
