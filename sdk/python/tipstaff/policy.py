"""What an author writes, and how calls of the agent reach it."""

import dataclasses
import struct

from . import metrics
from .event import Event
from .settings import Settings, toml

_GAP = struct.Struct("<QIHBBQQI").unpack_from


class Refused(Exception):
    """Raised in `configure` or `restore`: a message for the operator."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """Events that were lost: "quiet" and "blind" are never the same."""

    kind: str
    """Kind of the events."""
    lost: int
    """How many."""
    first_ns: int
    """Not before this time, on the kernel's monotonic clock."""
    last_ns: int
    """Not after this time."""
    cause: int
    """1 ring full, 2 program missed, 3 map full, 4 queue of this policy full, 5 budget of a cgroup
    spent, 6 instance of this policy lost, 7 left out to save the agent's time (not told to who asks
    for `weight`). There may be more."""


def on(event):
    """Makes a method what is called upon an event: `@on(Exec)`."""
    if not (isinstance(event, type) and issubclass(event, Event)):
        raise TypeError(f"on({event!r}): expected a subclass of Event")

    def mark(method):
        method.tipstaff_event = event
        return method

    return mark


class Policy:
    """A policy. `class Shells(Policy, tick="1s", settings=Watch)`: both may be left out.

    A subclass may also have `save(self) -> bytes` and `restore(self, state)`, which hand its state
    to the next generation.
    """

    TICK = None
    SETTINGS = Settings

    def __init_subclass__(cls, tick=None, settings=Settings):
        cls.TICK, cls.SETTINGS = tick, settings
        # In the order in which they stand there.
        cls.HANDLERS = [
            (member.tipstaff_event, member)
            for member in vars(cls).values()
            if hasattr(member, "tipstaff_event")
        ]
        if not cls.HANDLERS:
            raise TypeError(f"{cls.__name__}: no method has @on(...), so it would see no event")

    def configure(self):
        """Prepares; `self.settings` is there. Raises Refused if the operator has to change one."""

    def on_tick(self, now_ns):
        """The time has come, also a last time when the agent stops."""

    def lost(self, gap):
        """Events were lost, and what was counted meanwhile is too low."""


def hands_over(policy):
    """Whether this class of a policy hands over its state."""
    return hasattr(policy, "save") and hasattr(policy, "restore")


def manifest(policy, name, version):
    """The manifest of this class of a policy."""
    lines = [f"name = {toml(name)}", f"version = {toml(version)}"]
    if policy.TICK:
        lines.append(f"tick = {toml(policy.TICK)}")
    for event, _ in policy.HANDLERS:
        lines += ["", "[[subscribe]]", f"event = {toml(event.KIND)}"]
        lines.append(f"fields = {toml(list(event.FIELDS.values()))}")
        if event.OPTIONAL:
            lines.append("optional = true")
        if event.WHERE is not None:
            lines.append(f"where = {toml(event.WHERE)}")
        if event.EVERY is not None:
            lines.append(f"every = {toml(event.EVERY)}")
    for setting, ty, doc, default in policy.SETTINGS.declared():
        lines += ["", "[[setting]]", f"name = {toml(setting)}", f"type = {toml(ty)}"]
        lines.append(f"doc = {toml(doc)}")
        if default is not None:
            lines.append(f"default = {default}")
    return "\n".join(lines) + "\n"


def batch_reader(policy):
    """The function that hands each row of a batch to its method, generated for these subscriptions."""
    namespace = {"gap": _gap, "kinds": [event.KIND for event, _ in policy.HANDLERS]}
    code = [
        "def read(policy, rows):",
        "    at, end = 0, len(rows)",
        "    while at < end:",
        "        if rows[at + 15] & 128:",
        "            at += gap(policy, kinds, rows, at)",
        "            continue",
        "        index = rows[at + 14]",
    ]
    for index, (event, method) in enumerate(policy.HANDLERS):
        namespace |= {f"Event{index}": event, f"unpack{index}": event.UNPACK, f"on{index}": method}
        code += [
            f"        {'if' if index == 0 else 'elif'} index == {index}:",
            f"            f = unpack{index}(rows, at)",
            f"            on{index}(policy, Event{index}(rows, f))",
        ]
    code += [
        "        else:",
        '            raise IndexError(f"a row of subscription {index}, which there is not")',
        "        at += f[2] * 8",
    ]
    exec("\n".join(code), namespace)
    return namespace["read"]


def _gap(policy, kinds, rows, at):
    """Tells the policy of lost events; returns the length of the row. What is not understood is skipped."""
    words = int.from_bytes(rows[at + 12:at + 14], "little")
    if words * 8 >= _GAP_SIZE:
        first, _, _, index, _, lost, last, cause = _GAP(rows, at)
        policy.lost(Gap(kinds[index], lost, first, last, cause))
    return words * 8


_GAP_SIZE = struct.calcsize("<QIHBBQQI")


def exports(policy, text):
    """The classes that a component exports, by name, for this class of a policy and its manifest."""
    from componentize_py_types import Err

    read = batch_reader(policy)
    instance = policy()

    class Exported:
        def describe(self):
            return text

        def configure(self, settings):
            instance.settings = policy.SETTINGS(settings)
            try:
                instance.configure()
            except Refused as refused:
                raise Err(str(refused)) from None
            metrics.flush()
            return text

        def on_batch(self, rows):
            read(instance, rows)
            metrics.flush()

    class Ticks:
        def on_tick(self, now):
            instance.on_tick(now)
            metrics.flush()

    class HandOver:
        def save(self):
            return instance.save()

        def restore(self, state):
            try:
                instance.restore(state)
            except Refused as refused:
                raise Err(str(refused)) from None
            metrics.flush()

    return {"Policy": Exported, "Ticks": Ticks, "HandOver": HandOver}
