"""Calling a tool the long way: pydantic reads the arguments."""

import inspect
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from omni import lines, schema
from omni.context import Context, Native, current
from omni.result import Plain, plain


def bind(name: str, function: Callable[..., Any]) -> Callable[[dict[str, Any], Context | Native | None], Any]:
    """What calls this function as the tool `name`: it returns the plain result, or a coroutine for it."""
    signature = schema.read(function)
    return (_asynchronous if inspect.iscoroutinefunction(function) else _synchronous)(name, function, signature)


def _synchronous(
    name: str, function: Callable[..., Any], signature: schema.Signature
) -> Callable[[dict[str, Any], Context | Native | None], Plain]:
    validate, parameter, wrapped = signature.validate, signature.context, signature.wrapped
    has_output = signature.output is not None

    def call(arguments: dict[str, Any], context: Context | Native | None) -> Plain:
        token = current.set(context)
        try:
            try:
                values = validate(arguments)
            except ValidationError as error:
                raise schema.explain(error, signature.input) from None
            if parameter is not None:
                values[parameter] = context
            return plain(function(**values), name, has_output=has_output, wrapped=wrapped)
        finally:
            if lines.partial:
                lines.finish(context)
            current.reset(token)

    return call


def _asynchronous(
    name: str, function: Callable[..., Any], signature: schema.Signature
) -> Callable[[dict[str, Any], Context | Native | None], Any]:
    validate, parameter, wrapped = signature.validate, signature.context, signature.wrapped
    has_output = signature.output is not None

    async def call(arguments: dict[str, Any], context: Context | Native | None) -> Plain:
        token = current.set(context)
        try:
            try:
                values = validate(arguments)
            except ValidationError as error:
                raise schema.explain(error, signature.input) from None
            if parameter is not None:
                values[parameter] = context
            return plain(await function(**values), name, has_output=has_output, wrapped=wrapped)
        finally:
            if lines.partial:
                lines.finish(context)
            current.reset(token)

    return call
