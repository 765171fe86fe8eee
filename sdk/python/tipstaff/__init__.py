"""Write Tipstaff policies in Python.

    from tipstaff import Counters, Event, Policy, on, u32

    class Exec(Event, kind="exec"):
        path: str
        uid: u32

    class Shells(Policy):
        def configure(self):
            self.shells = Counters("shells_total", "uid")

        @on(Exec)
        def count(self, event):
            if event.path.endswith("sh"):
                self.shells.add(event.uid)

`python -m tipstaff build` makes a component of it. The module's top level runs then, not in the
agent: call nothing of the agent there, and import everything there.
"""

from . import log, state
from .alert import alert
from .event import Address, Event, field, i32, i64, u8, u16, u32, u64
from .metrics import Counter, Counters, Gauge, Histogram, describe
from .policy import Gap, Policy, Refused, on
from .settings import Settings, setting
from .window import Window

__all__ = [
    "Address", "Counter", "Counters", "Event", "Gap", "Gauge", "Histogram", "Policy", "Refused",
    "Settings", "Window", "alert", "describe", "field", "i32", "i64", "log", "on", "setting", "state",
    "u8", "u16", "u32", "u64",
]
