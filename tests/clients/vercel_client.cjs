// The AI SDK of Vercel against `omni serve`, through each of its providers that speak a protocol of ours.
"use strict";

const assert = require("node:assert/strict");
const { createOpenAI } = require("@ai-sdk/openai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { createOpenResponses } = require("@ai-sdk/open-responses");
const { generateText, streamText } = require("ai");

const baseURL = process.argv[2];
const openai = createOpenAI({ baseURL, apiKey: "unused" });
const compatible = createOpenAICompatible({ name: "omni", baseURL, apiKey: "unused", includeUsage: true });
const open = createOpenResponses({ name: "omni", url: `${baseURL}/responses`, apiKey: "unused" });
const models = {
  "chat completions": compatible("omni"),
  "OpenAI's chat completions": openai.chat("omni"),
  responses: openai.responses("omni"),
  "Open Responses": open("omni"),
};

const call = { prompt: "hi", maxRetries: 0 };

/** The parts of a stream by their types, and what it came to. */
async function streamed(fields) {
  const failures = [];
  const stream = streamText({ ...call, ...fields, onError: ({ error }) => failures.push(error) });
  const kinds = [];
  for await (const part of stream.fullStream) kinds.push(part.type);
  return { kinds, failures, stream };
}

async function whole(model) {
  const answer = await generateText({ ...call, model });
  assert.equal(answer.text, "hello");
  assert.equal(answer.finishReason, "stop");
  assert.deepEqual([answer.usage.inputTokens, answer.usage.outputTokens], [12, 3]);
}

async function stream(model) {
  const { kinds, failures, stream } = await streamed({ model });
  assert.deepEqual(failures, []);
  assert.equal(await stream.text, "hello again");
  assert.equal((await stream.usage).inputTokens, 12);
  assert.ok(kinds.includes("text-delta"));
}

/** What omni does with its tools is not for the caller to do. */
async function tools(model) {
  const { kinds, failures, stream } = await streamed({ model });
  assert.deepEqual(failures, []);
  assert.ok(!kinds.some((kind) => kind.startsWith("tool-")), kinds.join(" "));
  assert.match(await stream.text, /Let me look\.\s*noon/);
  assert.equal(await stream.finishReason, "stop");
  const answer = await generateText({ ...call, model });
  assert.match(answer.text, /noon/);
  assert.deepEqual([answer.toolCalls, answer.finishReason], [[], "stop"]);
}

/** A conversation that is kept by the caller. */
async function talk(model) {
  const first = await generateText({ ...call, model });
  const messages = [{ role: "user", content: "hi" }, ...first.response.messages, { role: "user", content: "again" }];
  const second = await generateText({ model, messages, maxRetries: 0 });
  assert.deepEqual([first.text, second.text], ["one", "two"]);
}

async function errors(model) {
  await assert.rejects(generateText({ ...call, model }), { statusCode: 502, name: "AI_APICallError" });
  const { kinds, failures } = await streamed({ model });
  assert.ok(kinds.includes("error") || failures.length, kinds.join(" "));
  assert.ok(/no model gave an answer/.test(JSON.stringify(failures.map((f) => f.message ?? f))), String(failures[0]));
}

async function cancel(model) {
  const abort = new AbortController();
  const asked = generateText({ ...call, model, abortSignal: abort.signal });
  setTimeout(() => abort.abort(), 300);
  await assert.rejects(asked, { name: "AbortError" });
}

(async () => {
  for (const [name, model] of Object.entries(models)) {
    for (const part of [whole, stream, tools, talk, errors, cancel]) {
      await part(model).catch((error) => {
        throw new Error(`${part.name} with ${name}`, { cause: error });
      });
    }
  }
})();
