"""Events: declared by a class, read lazily from rows.

For each class straight-line code is generated once, when the class is made, which is at build time:
one `unpack_from` for the fixed part of a row; a property for each field, which decodes a text only
when it is asked for. The layout of rows is described in `wit/policy.wit`.
"""

import ipaddress
import struct
import types
import typing

u8 = typing.Annotated[int, "u8"]
u16 = typing.Annotated[int, "u16"]
u32 = typing.Annotated[int, "u32"]
u64 = typing.Annotated[int, "u64"]
i32 = typing.Annotated[int, "i32"]
i64 = typing.Annotated[int, "i64"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# For each annotation: the type in the manifest, the codes of `struct`, the alignment, and the
# expression that reads it, where {0} stands for the place of its first number.
_SCALAR = "f[{0}]"
_SLICE = "self._rows[f[{0}]:f[{0}] + f[{0} + 1]]"
_TYPES = {
    u8: ("u8", "B", 1, _SCALAR),
    u16: ("u16", "H", 2, _SCALAR),
    u32: ("u32", "I", 4, _SCALAR),
    u64: ("u64", "Q", 8, _SCALAR),
    i32: ("i32", "i", 4, _SCALAR),
    i64: ("i64", "q", 8, _SCALAR),
    bool: ("u8", "B", 1, "f[{0}] != 0"),
    str: ("text", "II", 4, _SLICE + ".decode()"),
    bytes: ("bytes", "II", 4, _SLICE),
    list[str]: ("text", "II", 4, _SLICE + '.decode().split("\\0")[:-1]'),
    list[bytes]: ("bytes", "II", 4, _SLICE + '.split(b"\\0")[:-1]'),
    Address: ("address", "16s", 8, "address(f[{0}])"),
}
# Time, absent fields, length in words, subscription, flags.
_HEADER = "<QIHBB"
_HEADER_SIZE = 16


def field(name):
    """The name of a field where it is not that of the attribute: `field("proc.parent.exe")`."""
    return _Named(name)


class _Named:
    def __init__(self, name):
        self.name = name


class _EventClass(type):
    def __new__(meta, name, bases, namespace, **declared):
        namespace.setdefault("__slots__", ())
        names = {key: namespace.pop(key).name for key in list(namespace)
                 if isinstance(namespace[key], _Named)}
        cls = super().__new__(meta, name, bases, namespace)
        if bases:
            _declare(cls, names, **declared)
        return cls

    def __init__(cls, name, bases, namespace, **declared):
        super().__init__(name, bases, namespace)


class Event(metaclass=_EventClass):
    """An event. Subclasses say of which kind, and list its fields:

        class Exec(Event, kind="exec", where="uid != 0"):
            path: str
            uid: u32
            parent: str | None = field("proc.parent.exe")

    `X | None` makes a field optional: it is None where this kernel, agent or operator does not give
    it. `optional=True` makes the kind optional. `where` lets the agent keep other events back.
    `every="5s"` says how often rows of an aggregated kind come.
    """

    __slots__ = ("_rows", "_f")

    def __init__(self, rows, fixed):
        self._rows = rows
        self._f = fixed

    @property
    def time_ns(self):
        """When it happened, in nanoseconds on the kernel's monotonic clock."""
        return self._f[0]

    @property
    def cut(self):
        """A text was longer than what the agent keeps."""
        return self._f[4] & 1 != 0

    @property
    def clipped(self):
        """A number was larger than its field and stands at its maximum."""
        return self._f[4] & 2 != 0

    @property
    def late(self):
        """It happened before an event that was delivered earlier."""
        return self._f[4] & 4 != 0

    def __repr__(self):
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.FIELDS)
        return f"{type(self).__name__}({fields})"


def _declare(cls, names, kind=None, where=None, every=None, optional=False):
    """Lays out the fields, and gives the class its properties and what the manifest needs."""
    if kind is None:
        raise TypeError(f'{cls.__name__}: expected class {cls.__name__}(Event, kind="...")')
    cls.KIND, cls.WHERE, cls.EVERY, cls.OPTIONAL = kind, where, every, optional
    # Name of the attribute -> as the manifest lists it.
    cls.FIELDS = {}
    layout, offset, place, bit = _HEADER, _HEADER_SIZE, 5, 0
    for attribute, annotation in typing.get_type_hints(cls, include_extras=True).items():
        annotation, is_optional = _without_none(annotation)
        if annotation not in _TYPES:
            raise TypeError(
                f"{cls.__name__}.{attribute}: {annotation!r} is no type of a field; "
                "there are u8 to u64, i32, i64, bool, str, bytes, list[str], list[bytes], Address"
            )
        name, codes, alignment, read = _TYPES[annotation]
        padding = -offset % alignment
        layout += "x" * padding + codes
        offset += padding + struct.calcsize("<" + codes)
        value = read.format(place)
        if is_optional:
            value = f"None if f[1] & {1 << bit} else {value}"
            bit += 1
        cls.FIELDS[attribute] = (
            f"{names.get(attribute, attribute)}:{name}{'?' if is_optional else ''}"
        )
        setattr(cls, attribute, _property(value))
        place += 2 if codes == "II" else 1
    cls.UNPACK = struct.Struct(layout).unpack_from


def _property(value):
    # Under a name of our own: a field may be called `address`, too.
    namespace = {"address": _address}
    exec(f"def read(self):\n    f = self._f\n    return {value}", namespace)
    return property(namespace["read"])


def _without_none(annotation):
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        rest = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        if len(rest) < len(typing.get_args(annotation)):
            union = rest[0]
            for arg in rest[1:]:
                union |= arg
            return union, True
    return annotation, False


def _address(packed):
    address = ipaddress.IPv6Address(packed)
    return address.ipv4_mapped or address
