// What the agent keeps for this policy outside of its instances: it survives an exception and a
// replaced file, and ends with the policy or the agent.
//
// Each call crosses to the agent and back: keep what every event needs in the policy itself, and here
// what must not be lost. `ttl` is in seconds; undefined: until the policy ends. Where there is no room
// (the limit `state`), `set` and `add` throw.
import * as state from "tipstaff:policy/state@0.1.0";

/** The value of a key, a Uint8Array; undefined if there is none. */
export const get = (key) => state.get(key) ?? undefined;

/** Sets the value of a key, a Uint8Array. If it throws, the value is what it was. */
export function set(key, value, ttl) {
  if (!state.set(key, value, nanoseconds(ttl))) throw full(key);
}

/** Forgets a key. Whether it was there. */
export const remove = (key) => state.remove(key);

/** Adds to a counter, which begins with 0 and is forgotten `ttl` after it was made. What it has now. */
export function add(key, n = 1, ttl = undefined) {
  const now = state.add(key, n, nanoseconds(ttl));
  if (now === undefined || now === null) throw full(key);
  return now;
}

/** What a counter has; 0 where there is none. */
export function count(key) {
  const value = get(key);
  if (value === undefined || value.length !== 8) return 0;
  return Number(new DataView(Uint8Array.from(value).buffer).getBigInt64(0, true));
}

const full = (key) => new Error(`no room for ${key}: the policy reached its limit \`state\``);

function nanoseconds(ttl) {
  // 0 means never; a time that is too long is never as well.
  if (ttl === undefined) return 0;
  const ns = Math.max(1, Math.round(ttl * 1e9));
  return ns < 2 ** 53 ? ns : 0;
}
