"""What Rust calls. Plain values cross here, and one `Handle` per tool.

Every process that calls a tool waits for what is imported here, so pydantic and asyncio are imported where
they are first needed.
"""

import inspect
import os
import traceback
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

from omni import attempts, extensions, lines, offers, simple, skill
from omni.context import Context, Native
from omni.errors import Unavailable
from omni.result import Plain, plain
from omni.tool import ATTRIBUTE, Options

Description: TypeAlias = dict[str, Any]

_LONGEST_TRACEBACK = 16 * 1024
_OWN_FILES = {
    os.path.join(os.path.dirname(__file__), name)
    for name in ("attempts.py", "calls.py", "kernel.py", "loop.py", "skill.py")
}
"""What is between Rust and a tool."""


class Handle:
    """One tool, ready to be called.

    Called with arguments and a context it returns the plain result, or a coroutine for it when
    `is_async`. The context's native half will do when the function wants none. It raises `Retry`,
    `Failed`, `ToolCancelled`, `asyncio.CancelledError`, and whatever else the tool raises, which
    means the tool is broken.

    `direct` is for Rust, which takes the short way where nothing has to be converted: the
    function, the parameter for the context, the JSON types of its arguments by parameter, whether
    its result has a schema and whether that puts the result under `result`.
    """

    __slots__ = ("_call", "_function", "direct", "is_async", "name", "wants_context")

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        facts = simple.read(function) or _facts(function)
        function = attempts.persistent(function)
        self.name = name
        self.is_async = inspect.iscoroutinefunction(function)
        self.wants_context = facts.context is not None
        self.direct = (function, facts.context, facts.kinds, facts.has_output, facts.wrapped)
        self._function = function
        self._call: Callable[[dict[str, Any], Context | Native | None], Any] | None = None

    def __call__(self, arguments: dict[str, Any], context: Context | Native | None = None) -> Any:
        if self._call is None:
            from omni import calls

            self._call = calls.bind(self.name, self._function)
        return self._call(arguments, context)

    def plain(self, value: Any) -> Plain:
        """Bring what the function returned into plain form."""
        _, _, _, has_output, wrapped = self.direct
        return plain(value, self.name, has_output=has_output, wrapped=wrapped)


def _facts(function: Callable[..., Any]) -> simple.Facts:
    from omni import schema

    signature = schema.read(function)
    return simple.Facts(signature.context, signature.kinds, signature.output is not None, signature.wrapped)


def describe(skill_name: str, folder: str, file: str, engines: skill.Engines | None = None) -> Description:
    """Import one script and say what tools it has.

    Returns `{"tools": [...], "problem": None, "modules": [...]}`, with the modules that the skill
    imports and that are neither its own nor Python's. Whatever the script does wrong is told in
    `problem`, with file, line and message; the tools that are fine are listed all the same.
    An `extension.toml` has no tools: its extension is loaded to see whether it can be. `engines`
    is what is known of the skill's extensions.
    """
    try:
        if os.path.basename(file) == extensions.FILE:
            extensions.check(skill.enter(skill_name, os.path.abspath(folder), engines=engines), file)
            return {"tools": [], "problem": None, "modules": []}
        module = skill.load(skill_name, folder, file, engines=engines)
    except BaseException as error:  # a stranger's code runs here, `sys.exit()` included
        return {"tools": [], "problem": _problem(error, folder, file), "modules": []}
    tools: list[Description] = []
    problem: Description | None = None
    lines_by_name: dict[str, int] = {}
    for key, (function, options) in _functions(module).items():
        line = inspect.unwrap(function).__code__.co_firstlineno
        try:
            name = _name(skill_name, function, options)
            tool = {**_describe(name, file, function, options), "function": key, "line": line}
        except Exception as error:
            problem = problem or {"file": file, "line": line, "message": str(error)}
            continue
        other = lines_by_name.setdefault(tool["name"], line)
        if other != line:
            message = f"there is another tool `{tool['name']}` in line {other}"
            problem = problem or {"file": file, "line": line, "message": message}
            continue
        tools.append(tool)
    tools.sort(key=lambda tool: int(tool["line"]))
    return {"tools": tools, "problem": problem, "modules": skill.imported(module)}


_handles: dict[tuple[str, int, str, str, str], Handle] = {}


def resolve(
    skill_name: str,
    folder: str,
    file: str,
    function: str,
    version: int = 1,
    contents: Mapping[str, bytes] | None = None,
    engines: skill.Engines | None = None,
) -> Handle:
    """Return the handle of a tool function, loading its script if it must.

    Handles are kept until `forget`. `contents` are the Python files of this version and
    `engines` its extensions, as `skill.load` takes them. Raises what loading raises, and
    `LookupError` when the script has no such tool.
    """
    key = (skill_name, version, folder, file, function)
    handle = _handles.get(key)
    if handle is None:
        functions = _functions(skill.load(skill_name, folder, file, version, contents, engines))
        if function not in functions:
            raise LookupError(f"`{file}` of skill `{skill_name}` has no tool function `{function}`")
        found, options = functions[function]
        handle = _handles[key] = Handle(_name(skill_name, found, options), found)
    return handle


def forget(skill_name: str, version: int | None = None) -> None:
    """Drop the handles and modules of one version of a skill, or of all.

    The next `describe` or `resolve` reads its files anew; calls under way finish on the old code.
    """
    for key in [key for key in _handles if key[0] == skill_name and version in (None, key[1])]:
        _handles.pop(key, None)
    extensions.forget(skill_name, version)
    skill.forget(skill_name, version)


def given(function: Callable[..., Any]) -> tuple[Description, Handle]:
    """Describe a marked function that is a tool by itself, without a skill, and make its handle."""
    options: Options = getattr(function, ATTRIBUTE)
    name = options.name or function.__name__
    described = _describe(name, function.__code__.co_filename, function, options)
    return described, Handle(name, function)


def format_broken(error: BaseException) -> str:
    """Render a traceback for the log, without the frames of this package's machinery."""
    told = traceback.TracebackException.from_exception(error)
    pending: list[traceback.TracebackException] = [told]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        kept = [frame for frame in part.stack if frame.filename not in _OWN_FILES and not _is_import(frame)]
        part.stack = traceback.StackSummary.from_list(kept)
        pending += [other for other in (part.__cause__, part.__context__) if other is not None]
        pending += part.exceptions or []
    text = "".join(told.format())
    if len(text) > _LONGEST_TRACEBACK:
        half = _LONGEST_TRACEBACK // 2
        text = f"{text[:half]}\n…\n{text[-half:]}"
    return text


def install() -> None:
    """Prepare the interpreter: what tools print becomes lines of the log.

    Called once at its start. Standard output may carry a protocol, so nobody prints there; the
    standard input is the same protocol's and reads as empty.
    """
    lines.install()


def warm() -> None:
    """Do what the first tool would do, so that every fork of this process has it done.

    Its first schema has pydantic look for plugins among all installed packages, for one.
    """

    def sample(number: int, words: list[str], text: str | None = None) -> dict[str, int]:
        """Stand for all tools."""
        return {text or "": number + len(words)}

    Handle("sample", sample)({"number": 1, "words": []})


def _functions(module: ModuleType) -> dict[str, tuple[FunctionType, Options]]:
    """The tools that are written in this very file, by the name of the function there."""
    found: dict[str, tuple[FunctionType, Options]] = {}
    taken: set[int] = set()
    for key, value in vars(module).items():
        options = getattr(value, ATTRIBUTE, None) if isinstance(value, FunctionType) else None
        if isinstance(options, Options) and value.__module__ == module.__name__ and id(value) not in taken:
            taken.add(id(value))
            found[key] = (value, options)
    return found


def _name(skill_name: str, function: FunctionType, options: Options) -> str:
    return f"{skill_name}.{options.name or function.__name__}"


def _describe(name: str, file: str, function: Callable[..., Any], options: Options) -> Description:
    from omni import schema

    signature = schema.read(function)
    return {
        "name": name,
        "title": options.title,
        "description": options.description or signature.description,
        "input": options.schema or signature.input,
        "output": signature.output,
        "annotations": {
            "read_only": options.read_only,
            "destructive": options.destructive,
            "idempotent": options.idempotent,
            "open_world": options.open_world,
        },
        "timeout": options.timeout,
        "idle_timeout": options.idle_timeout,
        "confirm": options.confirm,
        "cache_ttl": options.cache_ttl,
        "concurrency": options.concurrency,
        "kind": offers.kind(options, signature.input["properties"]),
        "examples": list(options.examples),
        "file": file,
        "isolation": options.isolation,
        "is_async": inspect.iscoroutinefunction(function),
    }


def _problem(error: BaseException, folder: str, file: str) -> Description:
    """Say where in the skill's own files something went wrong."""
    root = os.path.join(os.path.abspath(folder), "")
    where, line = file, 1
    if isinstance(error, SyntaxError) and (error.filename or "").startswith(root):
        where, line = os.path.relpath(str(error.filename), root), error.lineno or 1
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename.startswith(root):
                where, line = os.path.relpath(frame.filename, root), frame.lineno or 1
    said = error.msg if isinstance(error, SyntaxError) else _said(error)
    # Our own sentence says it all.
    kind = "" if isinstance(error, Unavailable) else f"{type(error).__name__}: "
    return {"file": where, "line": line, "message": f"{kind}{said}".rstrip(": ")}


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"


def _is_import(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith("<frozen importlib")
