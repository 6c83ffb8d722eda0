"""The official OpenAI SDK against `omni serve`, as a program uses it that knows nothing of omni."""

import sys

from openai import APIConnectionError, APIError, APITimeoutError, BadRequestError, NotFoundError, OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0, timeout=60)

USER = {"role": "user", "content": "hi"}


def chat(**fields):
    return client.chat.completions.create(**{"model": "omni", "messages": [USER], **fields})


def streamed(**fields):
    chunks = list(chat(stream=True, stream_options={"include_usage": True}, **fields))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    text = "".join(delta.content or "" for delta in deltas)
    assert not any(delta.tool_calls for delta in deltas)
    finish = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [reason for reason in finish if reason] == ["stop"], finish
    assert chunks[-1].choices == [], chunks[-1]
    assert chunks[-1].usage.total_tokens, chunks[-1]
    return text, chunks


def refused(kind, call):
    """What the call is refused with, which has to be of this kind."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("it was not refused")


def models():
    assert [model.id for model in client.models.list()] == ["omni"]
    assert client.models.retrieve("omni").owned_by == "omni"
    error = refused(NotFoundError, lambda: client.models.retrieve("gpt-4o"))
    assert error.code == "model_not_found", error


def whole():
    said = [
        {"role": "system", "content": "be brief"},
        USER,
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "and now?"}]},
    ]
    answer = chat(messages=said, temperature=0.3, max_completion_tokens=100, user="anna")
    assert answer.choices[0].message.content == "hello", answer
    assert answer.choices[0].finish_reason == "stop", answer
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 3), answer


def stream():
    text, chunks = streamed()
    assert text == "hello again", text
    thoughts = [getattr(chunk.choices[0].delta, "reasoning_content", None) for chunk in chunks if chunk.choices]
    assert "easy" in thoughts, thoughts


def tools():
    text, chunks = streamed()
    assert text == "Let me look.\n\nnoon", text
    told = [chunk.omni["type"] for chunk in chunks if getattr(chunk, "omni", None)]
    assert told == ["tool.started", "tool.completed", "result"], told
    assert chunks[-1].usage.prompt_tokens == 24, chunks[-1]
    answer = chat()
    assert answer.choices[0].message.content == "noon", answer
    assert answer.choices[0].message.tool_calls is None, answer
    assert answer.omni["tool_calls"] == 1, answer


def session():
    first = chat(metadata={"session_id": "talk"})
    assert first.choices[0].message.content == "one", first
    second = chat(extra_headers={"X-Omni-Session": "talk"})
    assert second.choices[0].message.content == "two", second
    assert second.omni["session_id"] == "talk", second


def errors():
    error = refused(BadRequestError, lambda: chat(n=2))
    assert (error.code, error.param) == ("unsupported_parameter", "n"), error
    assert error.request_id, error
    error = refused(APIError, lambda: list(chat(stream=True)))
    assert error.code == "model_failed", error


def cancel():
    with chat(stream=True) as chunks:
        assert next(iter(chunks)).choices[0].delta.role == "assistant"
    refused((APITimeoutError, APIConnectionError), lambda: chat(timeout=0.5))


for part in (models, whole, stream, tools, session, errors, cancel):
    part()
