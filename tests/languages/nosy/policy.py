"""Looks for what a policy does not have, as its setting `look` says, when it is configured."""

import os
import random
import socket
import sys
import time

from tipstaff import Event, Policy, Settings, alert, on, setting, u32


class Exec(Event, kind="exec"):
    uid: u32


class Look(Settings):
    look: str = setting("What to look for.")


class Nosy(Policy, settings=Look):
    def configure(self):
        alert("info", str(getattr(self, self.settings.look)()))

    @on(Exec)
    def ignore(self, event):
        pass

    def read(self):
        """Every way to a file: all find nothing."""
        found = []
        for path in ["/etc/passwd", "/", ".", "policy.py", "/dev/null"]:
            for look in [open, os.listdir, os.stat, os.mkdir]:
                try:
                    found.append(look(path))
                except OSError as error:
                    assert error.errno in (2, 44, 8, 76), error
        return found

    def environment(self):
        return [dict(os.environ), sys.argv[1:]]

    def clocks(self):
        """Both go on, and the wall clock is of this century."""
        begin = time.monotonic_ns()
        while time.monotonic_ns() == begin:
            pass
        return [time.time() > 1.7e9, time.monotonic_ns() < time.time_ns()]

    def randomness(self):
        numbers = {os.urandom(16) for _ in range(100)} | {random.SystemRandom().random()}
        return len(numbers)

    def output(self):
        print("to standard output\x1b[31m")
        print("to standard error", file=sys.stderr)
        return "written"

    def fail(self):
        raise ValueError("an exception that nobody catches")

    def connect(self):
        socket.create_connection(("127.0.0.1", 80))

    def listen(self):
        socket.create_server(("127.0.0.1", 0))

    def sleep(self):
        time.sleep(3600)

    def exit(self):
        os._exit(0)

    def grow(self):
        kept = []
        while True:
            kept.append(bytearray(1 << 20))

    def loop(self):
        while True:
            pass

    def recurse(self):
        return self.recurse()
