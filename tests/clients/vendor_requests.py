"""Checks recorded requests with the vendors' own Python types.

Usage: vendor_requests.py FILE, one request per line: {"dialect", "path", "headers", "body"}.

Three things are checked. Every value has the type the vendor's SDK declares. No key is sent
that the SDK does not know, at the top and in each message. The vendor's rules of order hold:
who speaks first, and which message must answer which call. Gemini has no such package here:
its requests are checked by the rules alone.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Iterator
from typing import Any

from anthropic.types import message_create_params as anthropic_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as responses_params
from pydantic import TypeAdapter, ValidationError

adapters: dict[Any, TypeAdapter[Any]] = {}


class Wrong(Exception):
    """A request that the vendor would refuse."""


def main(path: str) -> int:
    checks = {
        "chat": check_chat,
        "responses": check_responses,
        "anthropic": check_anthropic,
        "gemini": check_gemini,
    }
    checked = 0
    failures = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            request = json.loads(line)
            check = checks.get(request["dialect"])
            if check is None:
                continue
            checked += 1
            try:
                check(request["body"], request["headers"])
            except (Wrong, ValidationError) as error:
                failures.append(f"request {number} ({request['dialect']}): {error}")
    print("\n".join(failures) or f"{checked} requests are fine")
    return 1 if failures or not checked else 0


def check_chat(body: dict[str, Any], headers: dict[str, str]) -> None:
    if not headers.get("authorization", "").startswith("Bearer "):
        raise Wrong("no bearer token")
    validate(
        chat_params.CompletionCreateParamsStreaming
        if body.get("stream")
        else chat_params.CompletionCreateParamsNonStreaming,
        body,
    )
    # `reasoning_content` is no key of OpenAI's own. Copies of its protocol that send reasoning
    # want it back under that name, and OpenAI itself never sends any.
    known = {
        "system": {"role", "content", "name"},
        "user": {"role", "content", "name"},
        "assistant": {
            "role",
            "content",
            "name",
            "tool_calls",
            "refusal",
            "audio",
            "function_call",
            "reasoning_content",
        },
        "tool": {"role", "content", "tool_call_id"},
    }
    open_calls: list[str] = []
    for place, message in enumerate(body["messages"]):
        only(message, known[message["role"]], f"message {place}")
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise Wrong(f"message {place} answers no call")
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            raise Wrong(f"message {place} comes before the results of {open_calls}")
        open_calls = [call["id"] for call in message.get("tool_calls", [])]
        unique(open_calls)
        for call in message.get("tool_calls", []):
            is_object(json.loads(call["function"]["arguments"]))
        if message["role"] == "assistant" and not (message.get("content") or open_calls):
            raise Wrong(f"message {place} is empty")
    if open_calls:
        raise Wrong(f"no results for {open_calls}")
    for tool in body.get("tools", []):
        check_schema(tool["function"]["parameters"])


def check_responses(body: dict[str, Any], headers: dict[str, str]) -> None:
    if not headers.get("authorization", "").startswith("Bearer "):
        raise Wrong("no bearer token")
    # The types describe items as the server stores them; of items that are sent along with
    # `store: false` the server asks neither id nor status.
    filled = json.loads(json.dumps(body))
    for place, item in enumerate(filled["input"]):
        if item.get("type") == "reasoning":
            item.setdefault("id", f"rs_{place}")
        if item.get("type") == "message" and item["role"] == "assistant":
            item.setdefault("id", f"msg_{place}")
            item.setdefault("status", "completed")
            for part in item["content"]:
                part.setdefault("annotations", [])
    for tool in filled.get("tools", []):
        tool.setdefault("strict", False)
    validate(
        responses_params.ResponseCreateParamsStreaming
        if body.get("stream")
        else responses_params.ResponseCreateParamsNonStreaming,
        filled,
    )
    if body.get("store") is not False:
        raise Wrong("the server would keep the conversation")
    open_calls: list[str] = []
    for place, item in enumerate(body["input"]):
        if item.get("type") == "function_call":
            open_calls.append(item["call_id"])
            is_object(json.loads(item["arguments"]))
        elif item.get("type") == "function_call_output":
            if item["call_id"] not in open_calls:
                raise Wrong(f"item {place} answers no call")
            open_calls.remove(item["call_id"])
        elif open_calls and item.get("role") == "user":
            raise Wrong(f"item {place} comes before the results of {open_calls}")
        if item.get("type") == "reasoning":
            after = body["input"][place + 1 : place + 2]
            if not after or after[0].get("type") not in ("reasoning", "message", "function_call"):
                raise Wrong(f"the reasoning of item {place} led to nothing")
    if open_calls:
        raise Wrong(f"no results for {open_calls}")
    for tool in body.get("tools", []):
        check_schema(tool["parameters"])


def check_anthropic(body: dict[str, Any], headers: dict[str, str]) -> None:
    if "x-api-key" not in headers or "anthropic-version" not in headers:
        raise Wrong("a header is missing")
    validate(
        anthropic_params.MessageCreateParamsStreaming
        if body.get("stream")
        else anthropic_params.MessageCreateParamsNonStreaming,
        body,
    )
    blocks_known = {
        "text": {"type", "text", "cache_control", "citations"},
        "image": {"type", "source", "cache_control"},
        "thinking": {"type", "thinking", "signature"},
        "redacted_thinking": {"type", "data"},
        "tool_use": {"type", "id", "name", "input", "cache_control"},
        "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
    }
    messages = body["messages"]
    if messages[0]["role"] != "user":
        raise Wrong("the first message is not the user's")
    open_calls: list[str] = []
    for place, message in enumerate(messages):
        only(message, {"role", "content"}, f"message {place}")
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not blocks:
            raise Wrong(f"message {place} is empty")
        for block in blocks:
            only(block, blocks_known[block["type"]], f"a block of message {place}")
            if block["type"] == "text" and not block["text"].strip():
                raise Wrong(f"message {place} has an empty text")
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if sorted(results) != sorted(open_calls):
            raise Wrong(f"message {place} answers {results}, wanted are {open_calls}")
        kinds = [block["type"] for block in blocks]
        if "tool_result" in kinds and kinds.index("tool_result") != 0:
            raise Wrong(f"message {place} does not begin with its results")
        if any(kind == "thinking" for kind in kinds[kinds.count("thinking") :]):
            raise Wrong(f"message {place} does not begin with its reasoning")
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        unique(open_calls)
        for block in blocks:
            if block["type"] == "tool_use":
                is_object(block["input"])
    if open_calls:
        raise Wrong(f"no results for {open_calls}")
    if json.dumps(body).count('"cache_control"') > 4:
        raise Wrong("more than four cache marks")
    for tool in body.get("tools", []):
        check_schema(tool["input_schema"])


def check_gemini(body: dict[str, Any], headers: dict[str, str]) -> None:
    if "x-goog-api-key" not in headers:
        raise Wrong("no key")
    only(
        body,
        {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings", "cachedContent"},
        "the request",
    )
    if body["contents"][0]["role"] != "user":
        raise Wrong("the first content is not the user's")
    open_calls: list[str] = []
    for place, content in enumerate(body["contents"]):
        only(content, {"role", "parts"}, f"content {place}")
        if content["role"] not in ("user", "model") or not content["parts"]:
            raise Wrong(f"content {place} has no role or no parts")
        answered = [part["functionResponse"]["name"] for part in content["parts"] if "functionResponse" in part]
        if answered != open_calls:
            raise Wrong(f"content {place} answers {answered}, wanted are {open_calls}")
        open_calls = [part["functionCall"]["name"] for part in content["parts"] if "functionCall" in part]
        for part in content["parts"]:
            if "functionCall" in part:
                is_object(part["functionCall"]["args"])
    if open_calls:
        raise Wrong(f"no results for {open_calls}")


def validate(kind: Any, body: dict[str, Any]) -> None:
    only(body, set(typing.get_type_hints(kind)), "the request")
    # Pydantic reads iterables lazily, so they have to be walked, and while the adapter lives.
    if kind not in adapters:
        adapters[kind] = TypeAdapter(kind)
    adapter = adapters[kind]
    for _ in iterables(adapter.validate_python(body)):
        pass


def iterables(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from iterables(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from iterables(inner)
    elif hasattr(value, "__iter__") and not isinstance(value, (str, bytes)):
        items = list(value)
        yield items
        for inner in items:
            yield from iterables(inner)


def only(value: dict[str, Any], known: set[str], where: str) -> None:
    if unknown := set(value) - known:
        raise Wrong(f"{where} has unknown keys {sorted(unknown)}")


def unique(ids: list[str]) -> None:
    if len(set(ids)) != len(ids) or not all(ids):
        raise Wrong(f"ids are missing or repeated: {ids}")


def is_object(value: Any) -> None:
    if not isinstance(value, dict):
        raise Wrong(f"arguments are no object: {value!r}")


def check_schema(schema: dict[str, Any]) -> None:
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        raise Wrong(f"no object schema: {schema}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
