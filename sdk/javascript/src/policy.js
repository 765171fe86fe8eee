// What an author writes, and how calls of the agent reach it.
import { declare } from "./event.js";
import { error as logError } from "./log.js";
import { flush } from "./metrics.js";
import { TYPES, read, toml } from "./settings.js";

/** Thrown in `configure` or `restore`: a message for the operator. */
export class Refused extends Error {}

/**
 * A policy. Its subclass has these, of which only `events` must be there:
 *
 *     static events = { exec: { fields: { path: "text", uid: "u32?" }, on: "count",
 *                               where: "uid != 0", optional: true } };
 *     (`every: "5s"` says how often rows of an aggregated kind come)
 *     static settings = { prefixes: { type: "texts", doc: "Path prefixes.", default: ["/etc/"] } };
 *     static tick = "1s";
 *     save() { return bytes; }   restore(bytes) { ... }    to hand over its state
 */
export class Policy {
  /** Prepares; `this.settings` is there. Throws Refused if the operator has to change one. */
  configure() {}

  /** The time has come, also a last time when the agent stops. */
  onTick(nowNs) {}

  /**
   * Events were lost, and what was counted meanwhile is too low: `kind`, `lost`, `firstNs`, `lastNs`,
   * `cause` (1 ring full, 2 program missed, 3 map full, 4 queue of this policy full, 5 budget of a
   * cgroup spent, 6 instance of this policy lost, 7 left out to save the agent's time, which is not
   * told to who asks for `weight`; there may be more).
   */
  lost(gap) {}
}

/** The subscriptions of a class of a policy: kind, what is declared, fields as listed, class. */
function subscriptions(policy) {
  const found = Object.entries(policy.events ?? {}).map(([kind, declared]) => {
    if (typeof policy.prototype[declared.on] !== "function") {
      throw new Error(`event ${kind}: expected \`on\` to name a method, found ${declared.on}`);
    }
    return { kind, declared, ...declare(kind, declared.fields ?? {}) };
  });
  if (found.length === 0) throw new Error(`${policy.name}: no \`static events\`, so it would see none`);
  return found;
}

/** The worlds that a class of a policy is made for. */
export function worlds(policy) {
  const worlds = ["author"];
  if (policy.tick) worlds.push("author-ticks");
  if (policy.prototype.save && policy.prototype.restore) worlds.push("author-hand-over");
  return worlds;
}

/** The manifest of a class of a policy. */
export function manifest(policy, name, version) {
  const lines = [`name = ${toml(name)}`, `version = ${toml(version)}`];
  if (policy.tick) lines.push(`tick = ${toml(policy.tick)}`);
  for (const { kind, declared, listed } of subscriptions(policy)) {
    lines.push("", "[[subscribe]]", `event = ${toml(kind)}`, `fields = ${toml(listed)}`);
    if (declared.optional) lines.push("optional = true");
    if (declared.where !== undefined) lines.push(`where = ${toml(declared.where)}`);
    if (declared.every !== undefined) lines.push(`every = ${toml(declared.every)}`);
  }
  for (const [setting, { type, doc, default: value }] of Object.entries(policy.settings ?? {})) {
    if (!TYPES.includes(type)) throw new Error(`setting ${setting}: expected type of ${TYPES.join(", ")}`);
    lines.push("", "[[setting]]", `name = ${toml(setting)}`, `type = ${toml(type)}`, `doc = ${toml(doc ?? "")}`);
    if (value !== undefined) lines.push(`default = ${toml(value, type)}`);
  }
  return lines.join("\n") + "\n";
}

/** The function that hands each row of a batch to its method, generated for these subscriptions. */
function batchReader(subscriptions) {
  const cases = subscriptions.map(
    ({ declared }, index) => `case ${index}: policy.${declared.on}(new Event${index}(b, w, o)); break;`,
  );
  const code = `
    return (policy, b, w) => {
      for (let o = 0; o < b.length; o += (b[o + 12] | (b[o + 13] << 8)) * 8) {
        if (b[o + 15] & 128) { gap(policy, b, w, o); continue; }
        switch (b[o + 14]) {
          ${cases.join("\n")}
          default: throw new Error("a row of subscription " + b[o + 14] + ", which there is not");
        }
      }
    };`;
  const kinds = subscriptions.map(({ kind }) => kind);
  const gap = (policy, b, w, o) => {
    // What is not understood is skipped.
    if ((b[o + 12] | (b[o + 13] << 8)) * 8 < 36) return;
    const long = (at) => w[at >> 2] + w[(at + 4) >> 2] * 4294967296;
    policy.lost({
      kind: kinds[b[o + 14]],
      lost: long(o + 16),
      firstNs: long(o),
      lastNs: long(o + 24),
      cause: w[(o + 32) >> 2],
    });
  };
  const names = subscriptions.map((_, index) => `Event${index}`);
  const classes = subscriptions.map(({ Class }) => Class);
  return new Function("gap", ...names, code)(gap, ...classes);
}

/** What a component exports for this class of a policy and its manifest. */
export function component(Author, text) {
  const readBatch = batchReader(subscriptions(Author));
  const instance = new Author();
  // What is thrown ends the instance, its reason in the log; a refusal is the error of the call.
  const run = (act) => {
    try {
      const result = act();
      flush();
      return result;
    } catch (error) {
      if (error instanceof Refused) throw error.message;
      logError(`${error}\n${error?.stack ?? ""}`.trimEnd());
      throw error;
    }
  };
  return {
    policy: {
      describe: () => text,
      configure(settings) {
        run(() => {
          instance.settings = Object.fromEntries(settings.map(([name, value]) => [name, read(value)]));
          instance.configure();
        });
        return text;
      },
      onBatch(rows) {
        // Rows are aligned in the batch; the batch itself need not be in its buffer.
        const bytes = rows.byteOffset % 4 === 0 ? rows : Uint8Array.from(rows);
        const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
        run(() => readBatch(instance, bytes, words));
      },
    },
    ticks: {
      onTick(now) {
        run(() => instance.onTick(Number(now)));
      },
    },
    handOver: {
      save: () => run(() => instance.save()),
      restore(state) {
        run(() => instance.restore(state));
      },
    },
  };
}
