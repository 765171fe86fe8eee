"""Settings: declared by a class, checked by the agent, read from the plain TOML that it passes."""

import tomllib
import typing

_TYPES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    list[str]: "texts",
    list[int]: "integers",
}
_MISSING = object()


def setting(doc, default=_MISSING):
    """A setting: what it does, and its value where the operator gives none. Without a default it
    must be given."""
    return _Setting(doc, default)


class _Setting:
    def __init__(self, doc, default):
        self.doc = doc
        self.default = default


class Settings:
    """Subclasses list the settings:

        class Watch(Settings):
            prefixes: list[str] = setting("Path prefixes to watch.", ["/etc/", "/root/"])
            quiet: int = setting("Seconds in which an alert is not repeated.", 60)
    """

    def __init__(self, given):
        for name, text in given:
            setattr(self, name, tomllib.loads(f"value = {text}")["value"])

    @classmethod
    def declared(cls):
        """Name, type in the manifest, text and default as TOML (None: must be given) of each."""
        for name, annotation in typing.get_type_hints(cls).items():
            if annotation not in _TYPES:
                raise TypeError(
                    f"{cls.__name__}.{name}: {annotation!r} is no type of a setting; "
                    "there are str, int, float, bool, list[str], list[int]"
                )
            declared = cls.__dict__.get(name)
            if not isinstance(declared, _Setting):
                raise TypeError(f'{cls.__name__}.{name}: expected `= setting("what it does", ...)`')
            default = None if declared.default is _MISSING else toml(declared.default)
            yield name, _TYPES[annotation], declared.doc, default


def toml(value):
    """A value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, str):
        return '"' + "".join(_escaped(c) for c in value) + '"'
    raise TypeError(f"{value!r} cannot be written as a setting")


def _escaped(c):
    if c in '"\\':
        return "\\" + c
    return f"\\u{ord(c):04x}" if c < " " or c == "\x7f" else c
