"""Loading the scripts of a skill, each skill in a namespace of its own.

`scripts/x.py` of the skill `git` becomes the module `omni_skills.git.x`. Its siblings are found
by `from . import y`, and by a plain `import y` as well, because that is how people write
scripts; `sys.path` stays as it is, so two skills may each have a `utils.py`.
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
from typing import Any

ROOT = "omni_skills"


class Package:
    """The namespace of one skill's scripts."""

    def __init__(self, name: str, skill: str, scripts: str) -> None:
        self.name = name
        self.skill = skill
        self.scripts = scripts
        self.builtins = {**vars(builtins), "__import__": self._import}
        self._siblings: dict[str, bool] = {}

    def locate(self, fullname: str) -> tuple[str, bool] | None:
        """Find the file of a module in this namespace, and whether it is a package."""
        base = os.path.join(self.scripts, *fullname.removeprefix(self.name).split("."))
        base = base.rstrip(os.sep)
        if os.path.isdir(base):
            return os.path.join(base, "__init__.py"), True
        file = base + ".py"
        return (file, False) if os.path.isfile(file) else None

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
        return builtins.__import__(name, globals, locals, fromlist or (), level)

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
            return ModuleSpec(ROOT, _Empty(), is_package=True)
        package = _packages.get(fullname.split(".")[1])
        if package is None or not fullname.startswith(ROOT + "."):
            return None
        found = package.locate(fullname)
        if found is None:
            return None
        file, is_package = found
        spec = ModuleSpec(fullname, _Source(package, file), origin=file, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(file)]
        return spec


class _Empty(Loader):
    def exec_module(self, module: ModuleType) -> None:
        pass


class _Source(Loader):
    """Runs a file from its source.

    The bytecode cache goes by time and size, and would answer an edit within the same second with the old code.
    """

    def __init__(self, package: Package, file: str) -> None:
        self._package = package
        self._file = file

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._package.builtins
        if self._file.endswith("__init__.py") and not os.path.isfile(self._file):
            return
        with open(self._file, "rb") as stream:
            source = stream.read()
        exec(compile(source, self._file, "exec", dont_inherit=True), module.__dict__)

    def get_source(self, fullname: str) -> str:
        """Serve tracebacks and `inspect`."""
        with open(self._file, "rb") as stream:
            return importlib.util.decode_source(stream.read())


_packages: dict[str, Package] = {}
_lock = threading.Lock()


def load(skill: str, folder: str, file: str) -> ModuleType:
    """Import one script of a skill, or return it when it is imported already.

    `file` is relative to the skill's folder, `scripts/status.py` for one. Whatever the script
    raises comes through.
    """
    package = _package(skill, os.path.abspath(folder))
    path = os.path.relpath(os.path.join(folder, file), package.scripts)
    parts = path.removesuffix(".py").split(os.sep)
    if not path.endswith(".py") or os.pardir in parts:
        raise ImportError(f"`{file}` is no Python file in `{package.scripts}`")
    if not os.path.isfile(os.path.join(package.scripts, path)):
        raise ImportError(f"there is no `{file}` in `{folder}`")
    if parts[-1] == "__init__":
        del parts[-1]
    return importlib.import_module(".".join([package.name, *parts]))


def forget(skill: str) -> None:
    """Drop a skill's modules, so that the next `load` reads its files anew.

    Functions of the old modules go on working for those who hold them.
    """
    with _lock:
        for key in [key for key, package in _packages.items() if package.skill == skill]:
            prefix = _packages.pop(key).name
            for name in [name for name in sys.modules if name == prefix or name.startswith(prefix + ".")]:
                del sys.modules[name]


def _package(skill: str, folder: str) -> Package:
    scripts = os.path.join(folder, "scripts")
    with _lock:
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        for package in _packages.values():
            if package.skill == skill and package.scripts == scripts:
                return package
        # `a-b` and `a_b` are two skills, and so are two folders called `git`.
        plain = skill.replace("-", "_")
        key = next(key for key in _names(plain) if key not in _packages)
        package = _packages[key] = Package(f"{ROOT}.{key}", skill, scripts)
        return package


def _names(plain: str) -> Iterator[str]:
    yield plain
    yield from (f"{plain}_{number}" for number in itertools.count(2))
