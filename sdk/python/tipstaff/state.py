"""What the agent keeps for this policy outside of its instances: it survives an exception and a
replaced file, and ends with the policy or the agent.

Each call crosses to the agent and back: keep what every event needs in the policy itself, and here
what must not be lost. `ttl` is in seconds; None: until the policy ends.
"""

from . import agent


class Full(Exception):
    """There is no room: the policy reached its limit `state`."""


def get(key):
    """The value of a key, as bytes; None if there is none."""
    return agent.state.get(key)


def set(key, value, ttl=None):
    """Sets the value of a key, bytes. Raises Full, and then the value is what it was."""
    if not agent.state.set(key, value, _nanoseconds(ttl)):
        raise Full(key)


def remove(key):
    """Forgets a key. Whether it was there."""
    return agent.state.remove(key)


def add(key, n=1, ttl=None):
    """Adds to a counter, which begins with 0 and is forgotten `ttl` after it was made. What it has
    now. Raises Full."""
    now = agent.state.add(key, n, _nanoseconds(ttl))
    if now is None:
        raise Full(key)
    return now


def count(key):
    """What a counter has; 0 where there is none."""
    value = get(key)
    return int.from_bytes(value, "little", signed=True) if value is not None and len(value) == 8 else 0


def _nanoseconds(ttl):
    # 0 means never; a time that is too long is never as well.
    if ttl is None:
        return 0
    nanoseconds = max(1, round(ttl * 1e9))
    return nanoseconds if nanoseconds < 1 << 64 else 0
