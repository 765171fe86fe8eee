"""Uses all that the SDK has. `policy.js` is the same in JavaScript, and the same is expected of both."""

import json

from tipstaff import (
    Address, Counter, Counters, Event, Gauge, Histogram, Policy, Refused, Settings, Window, alert,
    describe, field, i32, log, on, setting, state, u16, u32, u64,
)

MINUTE, PARTS = 60, 6


class Exec(Event, kind="exec"):
    path: str
    uid: u32 | None
    args: list[str]


class Failed(Event, kind="open", where="result < 0 and path ^= /etc/"):
    path: str
    result: i32
    parent: str | None = field("proc.parent.exe")


class Calls(Event, kind="syscall_stats", every="2s"):
    call: str
    count: u64


class Connect(Event, kind="connect"):
    address: Address | None
    port: u16 | None


class Future(Event, kind="of_a_newer_agent", optional=True):
    pid: u32


class Rules(Settings):
    word: str = setting("A text.", "a \"b\"\n\té")
    quiet: int = setting("An integer.")
    share: float = setting("A number.", 0.5)
    loud: bool = setting("A switch.", True)
    names: list[str] = setting("Texts.", ["x", "y z"])
    numbers: list[int] = setting("Integers.", [1, -2])


class Whole(Policy, settings=Rules, tick="1h"):
    def configure(self):
        rules = self.settings
        if rules.quiet < 0:
            raise Refused("`quiet` must not be negative")
        given = [rules.word, rules.quiet, rules.share, rules.loud, rules.names, rules.numbers]
        log.debug(json.dumps(given, separators=(",", ":"), ensure_ascii=False))
        log.info("information")
        log.warning("a warning")
        log.error("an error")
        describe("path_length", "How long paths are.", "bytes")
        self.lengths = Histogram("path_length", [5.0, 10.0], kind="exec")
        self.execs = Counters("execs_total", "uid", "first")
        self.calls = Counters("calls_total", "call")
        self.failures = Counter("failures_total", place="etc")
        self.losses = Counters("losses_total", "kind", "cause")
        self.last = Gauge("last_uid")
        self.ticks = Gauge("ticks", unit="none")
        self.recent = Window(MINUTE, PARTS)

    @on(Exec)
    def exec(self, event):
        self.recent.add(event.time_ns)
        self.lengths.observe(len(event.path))
        uid = -1 if event.uid is None else event.uid
        self.last.set(uid)
        self.execs.add(uid, event.args[0] if event.args else "none")
        seen = state.add("seen")
        state.set("last", event.path.encode(), ttl=3600)
        if event.path == "/bin/report":
            alert(
                "critical", "report",
                recent=self.recent.sum(event.time_ns),
                rate=round(self.recent.per_second(event.time_ns) * 1000),
                seen=seen, counted=state.count("seen"), last=state.get("last").decode(),
                gone=state.remove("last"), missing=state.get("last") is None,
            )

    @on(Failed)
    def failed(self, event):
        self.failures.add(2)
        alert("warning", event.path, result=event.result, parent=event.parent or "unknown")

    @on(Calls)
    def called(self, event):
        self.calls.add(event.call, n=event.count)

    @on(Connect)
    def connected(self, event):
        alert("info", f"{event.address} {event.port}" if event.address else "nowhere")

    @on(Future)
    def never(self, event):
        pass

    def on_tick(self, now_ns):
        self.ticks.add(1)
        if now_ns < 1:
            log.error("no time")

    def lost(self, gap):
        self.losses.add(gap.kind, gap.cause, n=gap.lost)

    def save(self):
        return self.recent.to_bytes()

    def restore(self, kept):
        recent = Window.from_bytes(MINUTE, PARTS, kept)
        if recent is None:
            raise Refused("it is of another kind")
        self.recent = recent
