// Uses all that the SDK has. `policy.py` is the same in Python, and the same is expected of both.
import {
  Counter, Counters, Gauge, Histogram, Policy, Refused, Window, alert, describe, log, state,
} from "tipstaff";

const [MINUTE, PARTS] = [60, 6];
const bytes = (text) => Uint8Array.from(text, (char) => char.charCodeAt(0));
const text = (bytes) => String.fromCharCode(...bytes);

export default class Whole extends Policy {
  static events = {
    exec: { fields: { path: "text", uid: "u32?", args: "texts" }, on: "exec" },
    open: {
      where: "result < 0 and path ^= /etc/",
      fields: { path: "text", result: "i32", parent: "text? = proc.parent.exe" },
      on: "failed",
    },
    syscall_stats: { every: "2s", fields: { call: "text", count: "u64" }, on: "called" },
    connect: { fields: { address: "address?", port: "u16?" }, on: "connected" },
    of_a_newer_agent: { optional: true, fields: { pid: "u32" }, on: "never" },
  };

  static settings = {
    word: { type: "text", doc: "A text.", default: 'a "b"\n\té' },
    quiet: { type: "integer", doc: "An integer." },
    share: { type: "number", doc: "A number.", default: 0.5 },
    loud: { type: "boolean", doc: "A switch.", default: true },
    names: { type: "texts", doc: "Texts.", default: ["x", "y z"] },
    numbers: { type: "integers", doc: "Integers.", default: [1, -2] },
  };

  static tick = "1h";

  configure() {
    const { word, quiet, share, loud, names, numbers } = this.settings;
    if (quiet < 0) throw new Refused("`quiet` must not be negative");
    log.debug(JSON.stringify([word, quiet, share, loud, names, numbers]));
    log.info("information");
    log.warning("a warning");
    log.error("an error");
    describe("path_length", "How long paths are.", "bytes");
    this.lengths = new Histogram("path_length", [5, 10], { kind: "exec" });
    this.execs = new Counters("execs_total", ["uid", "first"]);
    this.calls = new Counters("calls_total", ["call"]);
    this.failures = new Counter("failures_total", { place: "etc" });
    this.losses = new Counters("losses_total", ["kind", "cause"]);
    this.last = new Gauge("last_uid");
    this.ticks = new Gauge("ticks", { unit: "none" });
    this.recent = new Window(MINUTE, PARTS);
  }

  exec(event) {
    this.recent.add(event.timeNs);
    this.lengths.observe(event.path.length);
    const uid = event.uid ?? -1;
    this.last.set(uid);
    this.execs.add([uid, event.args[0] ?? "none"]);
    const seen = state.add("seen");
    state.set("last", bytes(event.path), 3600);
    if (event.path === "/bin/report") {
      alert("critical", "report", {
        recent: this.recent.sum(event.timeNs),
        rate: Math.round(this.recent.perSecond(event.timeNs) * 1000),
        seen,
        counted: state.count("seen"),
        last: text(state.get("last")),
        gone: state.remove("last") ? "True" : "False",
        missing: state.get("last") === undefined ? "True" : "False",
      });
    }
  }

  failed(event) {
    this.failures.add(2);
    alert("warning", event.path, { result: event.result, parent: event.parent ?? "unknown" });
  }

  called(event) {
    this.calls.add([event.call], event.count);
  }

  connected(event) {
    alert("info", event.address ? `${event.address} ${event.port}` : "nowhere");
  }

  never() {}

  onTick(nowNs) {
    this.ticks.add(1);
    if (nowNs < 1) log.error("no time");
  }

  lost(gap) {
    this.losses.add([gap.kind, gap.cause], gap.lost);
  }

  save() {
    return this.recent.toBytes();
  }

  restore(kept) {
    const recent = Window.fromBytes(MINUTE, PARTS, kept);
    if (recent === undefined) throw new Refused("it is of another kind");
    this.recent = recent;
  }
}
