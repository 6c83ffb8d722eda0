"""Extensions of skills: what a script uses that is no script, some of it in other languages.

```python
from omni import extension

engine = extension("search")    # extensions/search of the skill this script belongs to
```

The module is `omni_ext.<skill>.<name>`, each version of a skill having its own. A Rust extension
is used once it is built; until then, and where it cannot be loaded, its Python fallback serves.
"""

import atexit
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from omni import skill
from omni._native import log
from omni.errors import Unavailable

ROOT = "omni_ext"
FILE = "extension.toml"
LIBRARY = "extension.so"
"""The twin of Rust's `extension::LIBRARY`."""

_FALLBACK = "@fallback"


@dataclass(frozen=True)
class Place:
    """What `setup(ctx)` of an extension is given."""

    skill: str
    name: str
    folder: Path
    """The extension's own folder. It is not to be written to."""
    built: Path | None
    """The folder with what was built of it."""


@dataclass
class _Library:
    """A library is loaded once in a process, however many versions of its skill there are."""

    module: ModuleType
    users: set[str] = field(default_factory=set)


@dataclass
class _Alive:
    package: skill.Package
    place: Place
    module: ModuleType
    library: str | None


_alive: dict[str, _Alive] = {}
_libraries: dict[str, _Library] = {}
_failed: dict[str, str] = {}
_spaces: dict[str, skill.Package] = {}
_lock = threading.RLock()
replaced: dict[tuple[str, str], Any] = {}
"""What tests put in the place of extensions, by the skill's folder and the name: see `omni.testing.fixture`."""


def extension(name: str, *, fallback: bool = False) -> Any:
    """Give an extension of the skill that the calling file belongs to.

    With `fallback`, give the Python that stands in for a Rust extension even where that one is
    built: for what only Python can do. Raises `Unavailable`, which is
    an `ImportError`, and whatever the extension raises.
    """
    module = str(sys._getframe(1).f_globals.get("__name__"))
    package = skill.owner(module) if module.startswith((skill.ROOT + ".", ROOT + ".")) else None
    if package is None:
        raise Unavailable(f"`{module}` asks for the extension `{name}`, but belongs to no skill")
    return load(package, name, fallback=fallback)


def load(package: skill.Package, name: str, *, fallback: bool = False) -> Any:
    """Give an extension of this version of a skill, loading it if it must."""
    key = (os.path.dirname(package.root), name)
    if not fallback and key in replaced:
        return replaced[key]
    _find()
    fullname = f"{ROOT}.{package.name.partition('.')[2]}.{name.replace('-', '_')}"
    module = importlib.import_module(fullname)
    if fallback and _alive[fullname].library is not None:
        module = importlib.import_module(fullname + _FALLBACK)
    return module


def check(package: skill.Package, file: str) -> None:
    """Load the extension with this `extension.toml`; whatever keeps it from being what it is meant to be is raised."""
    name = os.path.basename(os.path.dirname(file))
    load(package, name)
    built, _ = package.engines.get(name, (None, None))
    reason = _failed.get(os.path.join(built, LIBRARY)) if built else None
    if reason is not None:
        raise Unavailable(reason)


def forget(skill_name: str, version: int | None = None) -> None:
    """Drop the extensions of one version of a skill, or of all. Each one's `teardown` is called."""
    with _lock:
        for name, alive in list(_alive.items()):
            if alive.package.skill == skill_name and version in (None, alive.package.version):
                del _alive[name]
                _end(name, alive)
                _unregister(alive.package)


def library(file: str | Path, entry: str) -> ModuleType:
    """Load a library that is a Python module; `entry` is the name it has for itself. Raises `ImportError`."""
    path = str(file)
    with _lock:
        known = _libraries.get(path)
        if known is None:
            loader = ExtensionFileLoader(entry, path)
            spec = importlib.util.spec_from_file_location(entry, path, loader=loader)
            if spec is None:
                raise ImportError("it is no Python module")
            module = importlib.util.module_from_spec(spec)
            loader.exec_module(module)
            known = _libraries[path] = _Library(module)
        return known.module


class _Finder(MetaPathFinder):
    """Finds `omni_ext` and what is below it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parts = fullname.split(".")
        if parts[0] != ROOT:
            return None
        package = skill.owner(fullname)
        if len(parts) == 1 or (len(parts) == 2 and package is not None):
            return ModuleSpec(fullname, skill.Empty(), is_package=True)
        if package is None:
            return None
        if len(parts) == 3:
            return _spec(package, fullname, parts[2])
        space = _spaces.get(".".join(parts[:3]))
        return None if space is None else space.spec(fullname)


def _find() -> None:
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _spec(package: skill.Package, fullname: str, said: str) -> ModuleSpec | None:
    """Choose what serves."""
    plain, _, wanted = said.partition("@")
    home = os.path.join(os.path.dirname(package.root), "extensions")
    # A name in Python has no hyphen, and the name of an extension no underscore.
    name = plain.replace("_", "-")
    built, refused = package.engines.get(name, (None, None))
    place = Place(package.skill, name, Path(home, name), Path(built) if built else None)
    manifest = _manifest(package, place)
    runtime, entry = manifest.get("runtime"), str(manifest.get("entry", ""))
    standby = str(manifest.get("fallback", ""))
    told = f"the extension `{name}` of the skill `{package.skill}`"
    if refused and not standby:
        raise Unavailable(f"{told} cannot be used: {refused}")
    if runtime == "python":
        return _python(package, fullname, place, entry)
    if runtime == "executable":
        if manifest.get("build") and place.built is None:
            raise Unavailable(f"{told} is not built; `omni skill build {package.skill}` does that")
        from omni.program import Program

        program = Program(fullname, (place.built or place.folder) / entry, manifest.get("provides", []), told)
        return ModuleSpec(fullname, _Made(package, place, fullname, program))
    if runtime != "rust":
        raise Unavailable(f"{told}: `runtime` in its `{FILE}` is {runtime!r}")
    if place.built is not None and not refused and not wanted:
        path = place.built / LIBRARY
        try:
            module = library(path, entry)
            missing = [name for name in manifest.get("provides", []) if not hasattr(module, name)]
            if missing:
                raise ImportError(f"it lacks `{'`, `'.join(missing)}`, which `provides` names")
        except Exception as error:
            reason = f"`{path}` cannot be loaded: {error}; `omni skill build {package.skill} --force` builds it again"
            _failed[str(path)] = reason
            if not standby:
                raise Unavailable(f"{told}: {reason}") from error
            log("warning", None, f"{told}: {reason}; `{standby}` serves meanwhile")
        else:
            return ModuleSpec(fullname, _Made(package, place, fullname, module, str(path)))
    if not standby:
        raise Unavailable(f"{told} has no fallback and is not built; `omni skill build {package.skill}` does that")
    return _python(package, fullname, place, standby)


def _manifest(package: skill.Package, place: Place) -> dict[str, Any]:
    """Read it. What is wrong with it in particular is for `omni skill check` to say."""
    file = place.folder / FILE
    if not package.disk.is_file(str(file)):
        there = ", ".join(sorted(package.engines)) or "none"
        raise Unavailable(f"the skill `{place.skill}` has no extension `{place.name}`; there are: {there}")
    import tomllib

    try:
        return tomllib.loads(package.disk.read(str(file)).decode())
    except (OSError, ValueError) as error:
        raise Unavailable(f"`{file}` cannot be read: {error}") from None


def _python(package: skill.Package, fullname: str, place: Place, entry: str) -> ModuleSpec:
    file = str(place.folder / entry)
    if not package.disk.is_file(file):
        raise Unavailable(f"the extension `{place.name}` of the skill `{place.skill}` has no file `{entry}`")
    space = skill.Package(fullname, package.skill, str(place.folder), package.version, package.disk, package.engines)
    _spaces[fullname] = space
    spec = ModuleSpec(fullname, _Python(package, place, skill.Source(space, file)), origin=file, is_package=True)
    spec.has_location = True
    spec.submodule_search_locations = [str(place.folder)]
    return spec


class _Python(Loader):
    """Runs a Python file, and then its `setup`."""

    def __init__(self, package: skill.Package, place: Place, source: skill.Source) -> None:
        self._alive = (package, place)
        self._source = source

    def exec_module(self, module: ModuleType) -> None:
        self._source.exec_module(module)
        package, place = self._alive
        with _lock:
            _begin(module, place)
            _alive[module.__name__] = _Alive(package, place, module, None)

    def get_source(self, fullname: str) -> str:
        """Serve tracebacks and `inspect`."""
        return self._source.get_source(fullname)


class _Made(Loader):
    """Gives a module that is there already: a library's, or a program."""

    def __init__(
        self, package: skill.Package, place: Place, fullname: str, module: ModuleType, library: str | None = None
    ) -> None:
        self._fullname = fullname
        self._alive = _Alive(package, place, module, library)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._alive.module

    def exec_module(self, module: ModuleType) -> None:
        with _lock:
            shared = _libraries[self._alive.library] if self._alive.library else None
            if shared is None or not shared.users:
                _begin(module, self._alive.place)
            if shared is not None:
                shared.users.add(self._fullname)
            _alive[self._fullname] = self._alive


def _begin(module: ModuleType, place: Place) -> None:
    setup: Callable[[Place], object] | None = getattr(module, "setup", None)
    if setup is not None:
        setup(place)


def _end(name: str, alive: _Alive) -> None:
    if alive.library is not None:
        users = _libraries[alive.library].users
        users.discard(name)
        if users:
            return
    teardown: Callable[[], object] | None = getattr(alive.module, "teardown", None)
    if teardown is None:
        return
    try:
        teardown()
    except Exception as error:
        place = alive.place
        log("warning", None, f"{place.skill}: `teardown` of the extension `{place.name}` failed: {error!r}")


def _unregister(package: skill.Package) -> None:
    _, _, key = package.name.partition(".")
    top = f"{ROOT}.{key}"
    for names in (sys.modules, _spaces):
        for name in [name for name in names if name == top or name.startswith(top + ".")]:
            del names[name]
    # The import system keeps a module as an attribute of the one above it, too.
    if hasattr(sys.modules.get(ROOT), key):
        delattr(sys.modules[ROOT], key)


def finish() -> None:
    """Call every `teardown`: the process ends."""
    with _lock:
        for name in {alive.package.skill for alive in _alive.values()}:
            forget(name)


atexit.register(finish)
