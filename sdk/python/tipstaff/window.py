"""How much there was lately: sums over a sliding window of the events' own time."""

import struct

_MOST = (1 << 64) - 1


class Window:
    """A sum over the last `length` seconds, in so many parts. It slides by one part at a time: what it
    covers is between `parts - 1` and `parts` parts long, the newest of which has just begun.

        failed = Window(60, parts=60)
        failed.add(event.time_ns)
        if failed.sum(event.time_ns) > 5: ...

    Times are those of events (`time_ns`) or of `on_tick`. An event that comes late counts in its own
    part of the time, or not at all if the window has passed it.
    """

    __slots__ = ("_part_ns", "_newest", "_parts")

    def __init__(self, length, parts):
        if parts < 1:
            raise ValueError(f"parts {parts}: expected at least 1")
        self._part_ns = max(1, round(length * 1e9) // parts)
        # Number of the newest part, counted from the beginning of time.
        self._newest = 0
        self._parts = [0] * parts

    def add(self, time_ns, n=1):
        """Adds `n` at that time."""
        part = time_ns // self._part_ns
        self._slide(part)
        if self._newest - part < len(self._parts):
            place = part % len(self._parts)
            self._parts[place] = min(self._parts[place] + n, _MOST)

    def sum(self, now_ns):
        """The sum at that time."""
        self._slide(now_ns // self._part_ns)
        return min(sum(self._parts), _MOST)

    def per_second(self, now_ns):
        """How much there was per second, at that time."""
        covered = (len(self._parts) - 1) * self._part_ns + now_ns % self._part_ns + 1
        return self.sum(now_ns) * 1e9 / covered

    def is_empty(self, now_ns):
        """Whether nothing is in it at that time: then it may be forgotten."""
        return self.sum(now_ns) == 0

    def to_bytes(self):
        """Its contents, for `state` or `save`. Windows of the other SDKs have the same."""
        return struct.pack(f"<{2 + len(self._parts)}Q", self._part_ns, self._newest, *self._parts)

    @classmethod
    def from_bytes(cls, length, parts, data):
        """A window with these contents; None if they are of one that was made otherwise."""
        window = cls(length, parts)
        if len(data) != 8 * (2 + parts):
            return None
        part_ns, newest, *sums = struct.unpack(f"<{2 + parts}Q", data)
        if part_ns != window._part_ns:
            return None
        window._newest, window._parts = newest, sums
        return window

    def _slide(self, part):
        """Makes this part the newest, if it is newer."""
        if part > self._newest:
            for gone in range(min(part - self._newest, len(self._parts))):
                self._parts[(part - gone) % len(self._parts)] = 0
            self._newest = part
