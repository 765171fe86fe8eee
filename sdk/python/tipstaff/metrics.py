"""Metrics under the rules of Prometheus.

A metric belongs to the policy and goes on counting when its instance is replaced. Names, label
names and types must be the same wherever a metric is made: the agent ends an instance that breaks
this.
"""

from . import agent

# Series that are kept at hand before all are let go. The agent keeps counting them. It also bounds
# what colliding keys can cost: the seed of hashes is the same in every instance.
_KEPT = 1024

# Counters that something was added to since the last flush.
_touched = []


def describe(name, text, unit=""):
    """Says what a metric means: a text for a reader, and its unit in Prometheus' words ("seconds",
    "bytes"). To be called before the metric is made."""
    agent.metrics.describe(name, text, unit)


def flush():
    """Tells the agent what was added to counters. The calls of the agent end with it."""
    for counter in _touched:
        added, counter._added = counter._added, 0
        counter._handle.add(added)
    _touched.clear()


class Counter:
    """A number that only grows. Its name ends in `_total`.

    What is added reaches the agent when the call ends. What was added in a call that fails is lost
    with the instance, as are the events that the agent then reports as lost.
    """

    __slots__ = ("_handle", "_added")

    def __init__(self, name, **labels):
        self._handle = agent.metrics.Counter(name, _texts(labels))
        self._added = 0

    def add(self, n=1):
        """Adds `n`."""
        if not self._added:
            _touched.append(self)
        self._added += n


class Counters:
    """A counter with labels whose values are only known when an event comes.

    Counters("exec_total", "exe", "uid").add("/bin/true", 0)
    """

    __slots__ = ("_name", "_labels", "_kept")

    def __init__(self, name, *labels):
        self._name = name
        self._labels = labels
        self._kept = {}

    def add(self, *values, n=1):
        """Adds `n` to the series with these values of the labels."""
        counter = self._kept.get(values)
        if counter is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            counter = Counter(self._name, **dict(zip(self._labels, values, strict=True)))
            self._kept[values] = counter
        counter.add(n)


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("_handle",)

    def __init__(self, name, **labels):
        self._handle = agent.metrics.Gauge(name, _texts(labels))

    def set(self, value):
        """Sets the value."""
        self._handle.set(value)

    def add(self, delta):
        """Adds `delta`, which may be negative."""
        self._handle.add(delta)


class Histogram:
    """How values are distributed. `upper_bounds` ascend."""

    __slots__ = ("_handle",)

    def __init__(self, name, upper_bounds, **labels):
        self._handle = agent.metrics.Histogram(name, _texts(labels), upper_bounds)

    def observe(self, value):
        """Counts `value`."""
        self._handle.observe(value)


def _texts(labels):
    return [(name, str(value)) for name, value in labels.items()]
