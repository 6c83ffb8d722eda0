"""Loading the scripts of a skill, each skill in a namespace of its own.

`scripts/x.py` of the skill `git` becomes the module `omni_skills.git.x`. Its siblings are found
by `from . import y`, and by a plain `import y` as well, because that is how people write
scripts; `sys.path` stays as it is, so two skills may each have a `utils.py`.

A skill that is edited while the program runs is loaded once more, as another version with a
namespace of its own: `omni_skills.git@2.x` has siblings in `omni_skills.git@2`. Nothing of an
older version is touched, so calls that are in it end as they began.
"""

import builtins
import importlib
import importlib.machinery
import importlib.util
import itertools
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeAlias

ROOT = "omni_skills"

Engines: TypeAlias = Mapping[str, tuple[str | None, str | None]]
"""Extensions by name: the folder with what was built of each, and why it cannot be used; the twin of Rust's."""


class Disk:
    """Files as they are at the moment."""

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def is_file(self, path: str) -> bool:
        return os.path.isfile(path)

    def read(self, path: str) -> bytes:
        with open(path, "rb") as stream:
            return stream.read()


class Held(Disk):
    """Files as they were when this version of a skill was described, whatever became of them since."""

    def __init__(self, folder: str, contents: Mapping[str, bytes]) -> None:
        self._contents = {os.path.join(folder, name): content for name, content in contents.items()}
        self._folders = {os.path.join(folder, "scripts")}
        for path in self._contents:
            while (path := os.path.dirname(path)).startswith(folder + os.sep):
                self._folders.add(path)

    def is_folder(self, path: str) -> bool:
        return path in self._folders

    def is_file(self, path: str) -> bool:
        return path in self._contents

    def read(self, path: str) -> bytes:
        return self._contents[path]


class Package:
    """A namespace of one version of a skill: that of its scripts, or of one of its extensions."""

    def __init__(self, name: str, skill: str, root: str, version: int, disk: Disk, engines: Engines) -> None:
        self.name = name
        self.skill = skill
        self.root = root
        self.version = version
        self.disk = disk
        self.engines = engines
        self.builtins = {**vars(builtins), "__import__": self._import}
        self.imported: set[str] = set()
        self._siblings: dict[str, bool] = {}

    def locate(self, fullname: str) -> tuple[str, bool] | None:
        """Find the file of a module in this namespace, and whether it is a package."""
        base = os.path.join(self.root, *fullname.removeprefix(self.name).split("."))
        base = base.rstrip(os.sep)
        if self.disk.is_folder(base):
            return os.path.join(base, "__init__.py"), True
        file = base + ".py"
        return (file, False) if self.disk.is_file(file) else None

    def spec(self, fullname: str) -> ModuleSpec | None:
        """Say how a module in this namespace is loaded."""
        found = self.locate(fullname)
        if found is None:
            return None
        file, is_package = found
        spec = ModuleSpec(fullname, Source(self, file), origin=file, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(file)]
        return spec

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Stand in for `__import__` in the skill's own files: siblings first, then the world."""
        if level == 0 and self._is_sibling(name.partition(".")[0], globals):
            return builtins.__import__(name, {"__package__": self.name}, None, fromlist or (), 1)
        module = builtins.__import__(name, globals, locals, fromlist or (), level)
        if level == 0:
            self.imported.add(name)
            self.imported.update(f"{name}.{item}" for item in fromlist or () if f"{name}.{item}" in sys.modules)
        return module

    def _is_sibling(self, top: str, globals: Mapping[str, Any] | None) -> bool:
        fullname = f"{self.name}.{top}"
        # `scripts/json.py` that says `import json` means the one everybody means.
        if globals is not None and globals.get("__name__") == fullname:
            return False
        known = self._siblings.get(top)
        if known is None:
            known = self._siblings[top] = self.locate(fullname) is not None
        return known


class _Finder(MetaPathFinder):
    """Finds `omni_skills` and what is below it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(ROOT):
            return None
        if fullname == ROOT:
            return ModuleSpec(ROOT, Empty(), is_package=True)
        package = owner(fullname) if fullname.startswith(ROOT + ".") else None
        return None if package is None else package.spec(fullname)


class Empty(Loader):
    """Loads a package that only holds others."""

    def exec_module(self, module: ModuleType) -> None:
        pass


class Source(Loader):
    """Runs a file from its source.

    The bytecode cache goes by time and size, and would answer an edit within the same second with the old code.
    """

    def __init__(self, package: Package, file: str) -> None:
        self._package = package
        self._file = file

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._package.builtins
        if self._file.endswith("__init__.py") and not self._package.disk.is_file(self._file):
            return
        source = self._package.disk.read(self._file)
        exec(compile(source, self._file, "exec", dont_inherit=True), module.__dict__)

    def get_source(self, fullname: str) -> str:
        """Serve tracebacks and `inspect`."""
        return importlib.util.decode_source(self._package.disk.read(self._file))


_packages: dict[str, Package] = {}
_lock = threading.Lock()


def load(
    skill: str,
    folder: str,
    file: str,
    version: int = 1,
    contents: Mapping[str, bytes] | None = None,
    engines: Engines | None = None,
) -> ModuleType:
    """Import one script of a version of a skill, or return it when it is imported already.

    `file` is relative to the skill's folder, `scripts/status.py` for one, and so are the names in
    `contents`: the Python files of this version. Without them the disk has what is to be imported.
    `engines` are its extensions. Whatever the script raises comes through.
    """
    folder = os.path.abspath(folder)
    package = enter(skill, folder, version, contents, engines)
    path = os.path.relpath(os.path.join(folder, file), package.root)
    parts = path.removesuffix(".py").split(os.sep)
    if not path.endswith(".py") or os.pardir in parts:
        raise ImportError(f"`{file}` is no Python file in `{package.root}`")
    if not package.disk.is_file(os.path.join(package.root, path)):
        raise ImportError(f"there is no `{file}` in `{folder}`")
    if parts[-1] == "__init__":
        del parts[-1]
    return importlib.import_module(".".join([package.name, *parts]))


def imported(module: ModuleType) -> list[str]:
    """Name the modules that the scripts beside `module` have imported: not their own, nor Python's, nor ours."""
    package = _packages[module.__name__.split(".")[1]]
    known = sys.stdlib_module_names | {"omni", ROOT}
    return sorted(name for name in package.imported if name.partition(".")[0] not in known)


def forget(skill: str, version: int | None = None) -> None:
    """Drop the modules of one version of a skill, or of all: the next `load` reads files anew.

    Functions of the dropped modules go on working for those who hold them, except that they find
    no sibling any more: a version is dropped when the last call in it has ended.
    """
    with _lock:
        for key, package in list(_packages.items()):
            if package.skill != skill or version not in (None, package.version):
                continue
            del _packages[key]
            prefix = package.name
            for name in [name for name in sys.modules if name == prefix or name.startswith(prefix + ".")]:
                del sys.modules[name]
            # The import system keeps a module as an attribute of the one above it, too.
            if hasattr(sys.modules.get(ROOT), key):
                delattr(sys.modules[ROOT], key)


def owner(module: str) -> Package | None:
    """Find the namespace of scripts that a module belongs to, or that an extension belongs to."""
    parts = module.split(".")
    return _packages.get(parts[1]) if len(parts) > 1 else None


def enter(
    skill: str,
    folder: str,
    version: int = 1,
    contents: Mapping[str, bytes] | None = None,
    engines: Engines | None = None,
) -> Package:
    """Return the namespace of the scripts of a version of a skill, making it if there is none."""
    scripts = os.path.join(folder, "scripts")
    with _lock:
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        for package in _packages.values():
            if (package.skill, package.root, package.version) == (skill, scripts, version):
                return package
        # `a-b` and `a_b` are two skills, and so are two folders called `git`.
        plain = skill.replace("-", "_") + (f"@{version}" if version > 1 else "")
        key = next(key for key in _names(plain) if key not in _packages)
        disk = Disk() if contents is None else Held(folder, contents)
        package = _packages[key] = Package(f"{ROOT}.{key}", skill, scripts, version, disk, engines or {})
        return package


def _names(plain: str) -> Iterator[str]:
    yield plain
    yield from (f"{plain}_{number}" for number in itertools.count(2))
