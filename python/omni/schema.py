"""From a function's signature to JSON Schema, and to the validator that reads its arguments."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, TypeAlias, Union, get_args, get_origin

import docstring_parser
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

from omni.context import Context
from omni.errors import Retry
from omni.result import BLOCKS, Message
from omni.simple import read_hints

Schema: TypeAlias = dict[str, Any]

_MOST_COMPLAINTS = 10
_LONGEST_VALUE = 80


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function's signature and docstring say of the tool."""

    description: str
    input: Schema
    output: Schema | None
    wrapped: bool
    """Whether the result is put under `result`, because it is no JSON object by itself."""
    context: str | None
    """The parameter that takes the `Context`."""
    validate: Callable[[Any], dict[str, Any]]
    """Checks and converts arguments. Raises pydantic's `ValidationError`."""
    kinds: dict[str, set[str]]
    """The JSON types in which pydantic hands an argument on as it is, by parameter, `[int]` for a list of some; empty
    where it converts more than a whole number to a float."""


class SchemaError(TypeError):
    """A function's signature cannot be a tool's."""


def read(function: Callable[..., Any]) -> Signature:
    """Read a function's signature, type hints and docstring.

    Raises `SchemaError`, naming the parameter, when something has no form in JSON Schema.
    """
    name = function.__name__
    hints = _hints(function)
    doc = docstring_parser.parse(inspect.getdoc(function) or "")
    described = {p.arg_name.lstrip("-* "): p.description or "" for p in doc.params}
    context: str | None = None
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name, Any)
        if _is_context(hint):
            if context is not None:
                raise SchemaError(f"tool `{name}` takes the context twice: `{context}` and `{parameter.name}`")
            context = parameter.name
            continue
        _check(name, parameter)
        fields[parameter.name] = _field(parameter, hint, described.get(parameter.name, ""), defaults)
    adapter = _adapter(name, fields)
    output, wrapped = _output(hints.get("return", Any))
    return Signature(
        description=_description(function, doc),
        input=_input(name, adapter, defaults),
        output=output,
        wrapped=wrapped,
        context=context,
        validate=adapter.validator.validate_python,
        kinds=_kinds(adapter),
    )


def explain(error: ValidationError, schema: Schema) -> Retry:
    """Say in words, field by field, what is wrong with a call's arguments."""
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "missing":
            lines.append(f"`{where}` is missing")
        elif item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            known = ", ".join(f"`{key}`" for key in schema["properties"]) or "none"
            lines.append(f"`{where}` is no argument of this tool; it takes: {known}")
        else:
            value = repr(item["input"])
            if len(value) > _LONGEST_VALUE:
                value = value[:_LONGEST_VALUE] + "…"
            subject = f"`{where}`" if where else "the arguments"
            lines.append(f"{subject}: {item['msg']}, not {value}")
    more = len(lines) - _MOST_COMPLAINTS
    if more > 0:
        lines[_MOST_COMPLAINTS:] = [f"and {more} more"]
    return Retry("the arguments do not fit: " + "; ".join(lines))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return read_hints(function)
    except Exception as error:
        raise SchemaError(f"the type hints of tool `{function.__name__}` cannot be read: {error}") from error


def _is_context(hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Annotated:
        return _is_context(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return any(_is_context(arm) for arm in get_args(hint))
    return isinstance(hint, type) and issubclass(hint, Context)


def _check(name: str, parameter: inspect.Parameter) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        stars = "*" if parameter.kind == parameter.VAR_POSITIONAL else "**"
        raise SchemaError(
            f"tool `{name}` takes `{stars}{parameter.name}`, which no schema can describe; name its parameters"
        )
    if parameter.kind == parameter.POSITIONAL_ONLY:
        raise SchemaError(f"tool `{name}` takes `{parameter.name}` by position only; tools are called by name")
    if parameter.name.startswith("_"):
        raise SchemaError(f"parameter `{parameter.name}` of tool `{name}` starts with an underscore; rename it")


def _field(parameter: inspect.Parameter, hint: Any, described: str, defaults: dict[str, Any]) -> Any:
    """Build the typed-dict entry of a parameter, and note the default that the schema shows."""
    default = parameter.default
    base, metadata = (get_args(hint)[0], list(get_args(hint)[1:])) if get_origin(hint) is Annotated else (hint, [])
    if isinstance(default, FieldInfo):
        metadata.append(default)
        default = parameter.empty
    infos = [item for item in metadata if isinstance(item, FieldInfo)]
    optional = default is not parameter.empty or any(not info.is_required() for info in infos)
    if optional and default is not parameter.empty:
        defaults[parameter.name] = default
    if default is None and not _admits_none(base):
        base = Union[base, None]  # noqa: UP007 (`base` may be a string or a special form)
    if not any(info.description for info in infos):
        text = next((item for item in metadata if isinstance(item, str)), described)
        if text:
            metadata.append(FieldInfo(description=" ".join(text.split())))
    metadata = [item for item in metadata if not isinstance(item, str)]
    field = Annotated[(base, *metadata)] if metadata else base
    return NotRequired[field] if optional else field


def _admits_none(hint: Any) -> bool:
    if hint is None or hint is Any or hint is type(None):
        return True
    if get_origin(hint) is Annotated:
        return _admits_none(get_args(hint)[0])
    return get_origin(hint) in (Union, types.UnionType) and any(_admits_none(arm) for arm in get_args(hint))


def _adapter(name: str, fields: dict[str, Any]) -> TypeAdapter[dict[str, Any]]:
    # A typed dict rather than a model: it takes any parameter name, `schema` and `self` too, and
    # hands back the very dict the function is called with.
    make: Any = TypedDict
    arguments = make("Arguments", fields)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    try:
        return TypeAdapter(arguments)
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError) as error:
        raise SchemaError(f"the parameters of tool `{name}` have no schema: {_first_line(error)}") from error


_PLAIN = {"str", "int", "float", "bool"}
_CHECKED = {"type", "items_schema", "ge", "gt", "le", "lt", "min_length", "max_length", "metadata"}
"""Parts of pydantic's own schema that say no more than the JSON Schema does."""


def _kinds(adapter: TypeAdapter[dict[str, Any]]) -> dict[str, set[str]]:
    core: Any = adapter.core_schema
    return {name: _kind(field["schema"]) for name, field in core.get("fields", {}).items()}


def _kind(core: Any) -> set[str]:
    kind = core["type"]
    if kind == "nullable":
        inner = _kind(core["schema"])
        return inner | {"null"} if inner else set()
    if kind == "literal" and all(isinstance(value, str) for value in core["expected"]):
        return {"str"}
    if kind == "list" and core.keys() <= _CHECKED:
        return {f"[{item}]" for item in _kind(core["items_schema"]) if item in _PLAIN}
    plain = kind in _PLAIN and core.keys() <= _CHECKED
    return {kind} if plain else set()


class _Generate(GenerateJsonSchema):
    """Pydantic's generator without the titles it makes up for fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _generate(adapter: TypeAdapter[Any], mode: JsonSchemaMode) -> Schema:
    schema = adapter.json_schema(schema_generator=_Generate, mode=mode)
    # The remaining ones repeat class names. They sit at these two places only, so that a property
    # called `title` is in no danger.
    for definition in (schema, *schema.get("$defs", {}).values()):
        if isinstance(definition.get("title"), str):
            del definition["title"]
    return schema


def _input(name: str, adapter: TypeAdapter[dict[str, Any]], defaults: Mapping[str, Any]) -> Schema:
    try:
        schema = _generate(adapter, "validation")
    except PydanticUserError as error:
        raise SchemaError(f"the parameters of tool `{name}` have no JSON schema: {_first_line(error)}") from error
    properties = schema.setdefault("properties", {})
    for key, default in defaults.items():
        try:
            properties[key]["default"] = to_jsonable_python(default, inf_nan_mode="null")
        except ValueError:
            # The function still knows it; the schema only says that the argument may be left out.
            continue
    return schema


def _output(hint: Any) -> tuple[Schema | None, bool]:
    if _is_free(hint):
        return None, False
    try:
        schema = _generate(TypeAdapter(hint), "serialization")
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError):
        # It may be serialisable all the same, and the call will tell.
        return None, False
    if _is_object(schema):
        return {"type": "object", **schema}, False
    definitions = schema.pop("$defs", None)
    wrapped: Schema = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
    if definitions:
        wrapped["$defs"] = definitions
    return wrapped, True


def _is_free(hint: Any) -> bool:
    """Whether a result of this type is text or blocks, or may be."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _is_free(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        arms = [arm for arm in get_args(hint) if arm is not type(None)]
        return any(_is_free(arm) for arm in arms)
    if origin in (list, tuple):
        return any(_has_block(arm) for arm in get_args(hint))
    return hint in (Any, None, type(None), str, bytes, object, inspect.Signature.empty, *BLOCKS) or hint in (
        typing.NoReturn,
        typing.Never,
        list,
        dict,
    )


def _has_block(hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_has_block(arm) for arm in get_args(hint))
    return hint in (*BLOCKS, Message)


def _is_object(schema: Schema) -> bool:
    reference = schema.get("$ref", "")
    if reference.startswith("#/$defs/"):
        return _is_object(schema["$defs"][reference.removeprefix("#/$defs/")])
    return bool(schema.get("type") == "object")


def _description(function: Callable[..., Any], doc: docstring_parser.Docstring) -> str:
    parts = [part for part in (doc.short_description, doc.long_description) if part]
    return "\n\n".join(parts) or function.__name__.replace("_", " ").strip()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
