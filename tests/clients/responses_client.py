"""Responses of `omni serve`, as the official OpenAI SDK has them and as Open Responses has published them.

Everything that comes is held to both sets of types, strictly, before it is looked at.
"""

import json
import sys
import time

import openresponses_types.types as published
from openai import APIError, BadRequestError, NotFoundError, OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

client = OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0, timeout=60)
EVENT = TypeAdapter(ResponseStreamEvent)


def types_of_events():
    """The published type of each event, by its name: the one value that its field `type` may have."""
    found = {}
    for kind in vars(published).values():
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__.endswith("StreamingEvent"):
            name = kind.model_fields["type"].annotation
            values = [item.value for item in name] if hasattr(name, "__members__") else list(name.__args__)
            found.update(dict.fromkeys(values, kind))
    assert len(found) > 20, found
    return found


EVENTS = types_of_events()


def checked(text):
    """A response, as its JSON came."""
    published.ResponseResource.model_validate_json(text, strict=True)
    return Response.model_validate_json(text, strict=True)


def create(**fields):
    return checked(client.responses.with_raw_response.create(**{"model": "omni", "input": "hi", **fields}).text)


def retrieve(response):
    return checked(client.responses.with_raw_response.retrieve(response.id).text)


def lines(raw):
    """The events of a stream, each checked; their names are their types, and it ends as it should."""
    name, events, ended = None, [], False
    for line in raw.iter_lines():
        assert not ended or not line, line
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line == "data: [DONE]":
            ended = True
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
            EVENTS[json.loads(data)["type"]].model_validate_json(data, strict=True)
            event = EVENT.validate_json(data, strict=True)
            assert event.type == name, (event.type, name)
            events.append(event)
    assert ended, events[-1]
    return events


def streamed(**fields):
    fields = {"model": "omni", "input": "hi", **fields}
    with client.responses.with_streaming_response.create(stream=True, **fields) as raw:
        events = lines(raw)
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(events))), numbers
    return events


def refused(kind, call):
    """What the call is refused with, which has to be of this kind."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("it was not refused")


def whole():
    said = [
        {"role": "developer", "content": "be brief"},
        {"type": "message", "role": "user", "content": "I am Anna."},
        {"role": "assistant", "content": [{"type": "output_text", "text": "hello"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "who am I?"}]},
    ]
    asked = {"instructions": "in English", "metadata": {"a": "b"}, "temperature": 0.5, "max_output_tokens": 99}
    answer = create(input=said, **asked)
    assert (answer.status, answer.output_text) == ("completed", "Anna"), answer
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (12, 3), answer
    assert (answer.metadata, answer.temperature, answer.instructions) == ({"a": "b"}, 0.5, "in English"), answer
    assert retrieve(answer) == answer
    client.responses.delete(answer.id)
    refused(NotFoundError, lambda: retrieve(answer))
    refused(NotFoundError, lambda: client.responses.delete(answer.id))


def chain():
    first = create(input="one")
    second = create(input="two", previous_response_id=first.id)
    assert second.conversation == first.conversation, (first, second)
    # From the first once more, beside the second.
    other = create(input="three", previous_response_id=first.id)
    assert other.conversation != first.conversation, other
    alone = create(input="four", previous_response_id=second.id, store=False)
    assert alone.conversation is None, alone
    refused(NotFoundError, lambda: retrieve(alone))
    named = create(input="five", conversation="talk")
    assert named.conversation.id == "talk", named
    # As some clients do: what was said is pointed at.
    point = [{"type": "item_reference", "id": named.output[0].id}, {"role": "user", "content": "six"}]
    create(input=[{"role": "user", "content": "five"}, *point])
    error = refused(BadRequestError, lambda: create(previous_response_id="resp_0"))
    assert (error.code, error.param) == ("previous_response_not_found", "previous_response_id"), error


def stream():
    events = streamed()
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == "hello again", deltas
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"], kinds
    assert "response.reasoning_summary_text.delta" in kinds, kinds
    last = events[-1]
    assert (last.type, last.response.output_text) == ("response.completed", "hello again"), last
    assert [item.type for item in last.response.output] == ["reasoning", "message"], last
    assert retrieve(last.response) == last.response
    # The SDK's own helper puts it together from the pieces.
    with client.responses.stream(model="omni", input="hi") as pieces:
        assert pieces.get_final_response().output_text == "helped", pieces


def tools():
    events = streamed()
    last = events[-1].response
    assert [item.type for item in last.output] == ["message", "message"], last
    assert last.output_text == "Let me look.noon", last
    told = [event.omni["type"] for event in events if getattr(event, "omni", None)]
    assert told == ["tool.started", "tool.completed"], told
    assert last.omni["tool_calls"] == 1, last


def background():
    begun = create(background=True)
    assert begun.status in ("queued", "in_progress"), begun
    answer = begun
    while answer.status in ("queued", "in_progress"):
        time.sleep(0.05)
        answer = retrieve(begun)
    assert (answer.status, answer.output_text) == ("completed", "later"), answer


def resume():
    pieces = client.responses.create(model="omni", input="hi", background=True, stream=True)
    heard = [next(iter(pieces))]
    pieces.close()
    response = heard[0].response
    after = heard[-1].sequence_number
    fields = {"stream": True, "starting_after": after}
    with client.responses.with_streaming_response.retrieve(response.id, **fields) as raw:
        rest = lines(raw)
    numbers = [event.sequence_number for event in [*heard, *rest]]
    assert numbers == list(range(len(numbers))), numbers
    assert rest[-1].response.output_text == "the rest", rest[-1]


def cancel():
    begun = create(background=True)
    ended = checked(client.responses.with_raw_response.cancel(begun.id).text)
    assert (ended.status, ended.error) == ("cancelled", None), ended
    assert retrieve(begun).status == "cancelled"


def errors():
    function = {"type": "function", "name": "f", "parameters": {}, "strict": False}
    error = refused(BadRequestError, lambda: create(tools=[function]))
    assert (error.code, error.param) == ("unsupported_parameter", "tools"), error
    error = refused(BadRequestError, lambda: create(background=True, store=False))
    assert error.param == "background", error
    error = refused(APIError, create)
    assert (error.status_code, error.code) == (502, "model_failed"), error
    last = streamed()[-1]
    assert (last.type, last.response.status) == ("response.failed", "failed"), last
    assert "log" in last.response.error.message, last


def length():
    answer = create()
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens"), answer
    assert answer.output[0].status == "incomplete", answer


for part in (whole, chain, stream, tools, background, resume, errors, length, cancel):
    part()
