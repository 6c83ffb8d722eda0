// The official OpenAI SDK for Node against `omni serve`, as a program uses it that knows nothing of omni.
"use strict";

const assert = require("node:assert/strict");
const OpenAI = require("openai");

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: "hi" }];

const chat = (fields, options) => client.chat.completions.create({ model: "omni", messages, ...fields }, options);

async function all(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return pieces;
}

async function models() {
  const ids = (await all(await client.models.list())).map((model) => model.id);
  assert.deepEqual(ids, ["omni"]);
  await assert.rejects(client.models.retrieve("gpt-4o"), { status: 404, code: "model_not_found" });
}

async function whole() {
  const answer = await chat();
  assert.equal(answer.choices[0].message.content, "hello");
  assert.deepEqual([answer.usage.prompt_tokens, answer.usage.completion_tokens], [12, 3]);
  assert.ok(answer._request_id);
}

async function stream() {
  const chunks = await all(await chat({ stream: true, stream_options: { include_usage: true } }));
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  assert.equal(text, "Let me look.\n\nnoon");
  assert.ok(chunks.every((chunk) => !chunk.choices[0]?.delta.tool_calls));
  assert.equal(chunks.at(-1).usage.prompt_tokens, 24);
  // The helper of the SDK puts it together, and would call tools if there were any to call.
  const put = client.chat.completions.stream({ model: "omni", messages });
  assert.equal(await put.finalContent(), "helped");
}

async function errors() {
  await assert.rejects(chat({ n: 2 }), { status: 400, code: "unsupported_parameter", param: "n" });
  await assert.rejects(chat(), { status: 502, code: "model_failed" });
  await assert.rejects(async () => all(await chat({ stream: true })), { code: "model_failed" });
}

async function cancel() {
  const chunks = await chat({ stream: true });
  for await (const chunk of chunks) {
    assert.equal(chunk.choices[0].delta.role, "assistant");
    chunks.controller.abort();
  }
  await assert.rejects(chat({}, { timeout: 500 }), OpenAI.APIConnectionTimeoutError);
}

async function responses() {
  const first = await client.responses.create({ model: "omni", input: "one" });
  assert.equal(first.output_text, "1");
  const next = { model: "omni", input: "two", previous_response_id: first.id, stream: true };
  const events = await all(await client.responses.create(next));
  assert.equal(events.at(-1).type, "response.completed");
  assert.equal(events.at(-1).response.output[0].content[0].text, "2");
  const put = client.responses.stream({ model: "omni", input: "three" });
  assert.equal((await put.finalResponse()).output_text, "3");
  assert.equal((await client.responses.retrieve(first.id)).output_text, "1");
  const slow = await client.responses.create({ model: "omni", input: "slow", background: true });
  assert.equal((await client.responses.cancel(slow.id)).status, "cancelled");
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), { status: 404, code: "response_not_found" });
}

(async () => {
  for (const part of [models, whole, stream, errors, cancel, responses]) await part();
})();
