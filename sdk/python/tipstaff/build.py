"""From an author's module to a component: `python -m tipstaff build`.

The manifest is made here, by importing the module without an agent, and appended to the component as
a custom section, so that `tipstaff inspect` reads it without running anything.
"""

import importlib
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from .policy import Policy, hands_over, manifest

SECTION = b"tipstaff:manifest"
_HERE = Path(__file__).resolve().parent
_WORLD = "tipstaff-python"
# The only Python that runs before an author's module: it makes the exports of the component.
_APP = """
from tipstaff.policy import exports
import {module}
globals().update(exports({module}.{policy}, {manifest!r}))
"""


class BuildError(Exception):
    """What the author has to change."""


def build(folder):
    """Builds the policy in a folder with a pyproject.toml. Returns the path of the component."""
    folder = Path(folder).resolve()
    name, version, module = _project(folder)
    policy = _policy(folder, module)
    text = manifest(policy, name, version)
    output = folder / "build" / f"{name}.wasm"
    output.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tipstaff-", dir=output.parent) as work:
        work = Path(work)
        app = _APP.format(module=module, policy=policy.__name__, manifest=text)
        (work / "tipstaff_app.py").write_text(app)
        _world(work / "wit", policy)
        made = work / "component.wasm"
        _componentize(work, folder, made)
        with made.open("ab") as file:
            file.write(section(SECTION, text.encode()))
        os.replace(made, output)
    return output


def _project(folder):
    path = folder / "pyproject.toml"
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise BuildError(f"{path} is missing: expected name and version of the policy in its [project]") from None
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"{path}: {error}") from None
    project = table.get("project", {})
    for key in ("name", "version"):
        if not isinstance(project.get(key), str):
            raise BuildError(f"{path}: `{key}` is missing in [project]")
    module = table.get("tool", {}).get("tipstaff", {}).get("module", "policy")
    return project["name"], project["version"], module


def _policy(folder, module):
    if not (folder / f"{module}.py").is_file() and not (folder / module).is_dir():
        raise BuildError(f"{folder / module}.py is missing: expected the policy there, or `module` in [tool.tipstaff]")
    sys.path.insert(0, str(folder))
    # No compiled files beside the author's.
    sys.dont_write_bytecode = True
    members = vars(importlib.import_module(module)).values()
    found = [
        member
        for member in members
        if isinstance(member, type) and issubclass(member, Policy) and member.__module__ == module
    ]
    if len(found) != 1:
        names = ", ".join(policy.__name__ for policy in found) or "none"
        raise BuildError(f"{module}.py: expected one subclass of Policy, found {names}")
    return found[0]


def _world(folder, policy):
    """The contract with a world of exactly what this policy exports."""
    folder.mkdir()
    for file in (_HERE / "wit").glob("*.wit"):
        (folder / file.name).write_text(file.read_text())
    worlds = ["author"]
    if policy.TICK:
        worlds.append("author-ticks")
    if hands_over(policy):
        worlds.append("author-hand-over")
    with (folder / "worlds.wit").open("a") as file:
        file.write(f"world {_WORLD} {{ {' '.join(f'include {world};' for world in worlds)} }}\n")


def _componentize(work, folder, output):
    code = "import sys; from componentize_py import script; sys.exit(script())"
    command = [sys.executable, "-c", code, "--quiet", "--wit-path", work / "wit", "--world", _WORLD]
    command += ["componentize", "tipstaff_app", "--output", output]
    for path in (work, folder, _HERE.parent):
        command += ["--python-path", path]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not output.is_file():
        raise BuildError(f"componentize-py failed:\n{done.stdout}{done.stderr}".rstrip())


def section(name, data):
    """A custom section of WebAssembly."""
    payload = _leb128(len(name)) + name + data
    return b"\0" + _leb128(len(payload)) + payload


def _leb128(number):
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
