// Drives the agent of editors over HTTP with the official TypeScript SDK of the Agent Client Protocol.
//
// Usage: node acp_http_client.mjs SDK_FOLDER URL FOLDER TOKEN; the agent's model plays the script of tests/it/acp.rs.

import assert from "node:assert/strict";

const [sdk, url, folder, token] = process.argv.slice(2);
const acp = await import(`${sdk}/dist/acp.js`);
const { createHttpStream } = await import(`${sdk}/dist/http-stream.js`);
const { agent, client } = acp.methods;

/** Connects, says what the editor can do, and does `work`. Returns what was heard. */
async function connected(work) {
  const heard = { updates: [], asked: [], written: {} };
  const editor = acp
    .client({ name: "editor" })
    .onRequest(client.session.requestPermission, ({ params }) => {
      heard.asked.push(params.toolCall);
      const once = params.options.find((option) => option.kind === "allow_once");
      return { outcome: { outcome: "selected", optionId: once.optionId } };
    })
    .onRequest(client.fs.writeTextFile, ({ params }) => {
      heard.written[params.path] = params.content;
      return {};
    })
    .onNotification(client.session.update, ({ params }) => void heard.updates.push(params.update));
  const headers = { Authorization: `Bearer ${token}` };
  await editor.connectWith(createHttpStream(url, { headers }), async (context) => {
    const fs = { readTextFile: false, writeTextFile: true };
    const protocolVersion = acp.PROTOCOL_VERSION;
    await context.request(agent.initialize, { protocolVersion, clientCapabilities: { fs } });
    await work(context);
  });
  return heard;
}

const said = ({ updates }) =>
  updates
    .filter((update) => update.sessionUpdate === "agent_message_chunk")
    .map((update) => update.content.text)
    .join("");

let sessionId;
const first = await connected(async (context) => {
  ({ sessionId } = await context.request(agent.session.new, { cwd: folder, mcpServers: [] }));
  const prompt = [{ type: "text", text: "write hello" }];
  const { stopReason } = await context.request(agent.session.prompt, { sessionId, prompt });
  assert.equal(stopReason, "end_turn");
});
assert.equal(said(first), "I write it.Done, one file.");
assert.deepEqual(first.asked.map((call) => call.rawInput.path), ["a.txt"]);
assert.deepEqual(first.written, { [`${folder}/a.txt`]: "hello\n" });

const second = await connected(async (context) => {
  const { sessions } = await context.request(agent.session.list, { cwd: folder });
  assert.deepEqual(sessions.map((session) => session.sessionId), [sessionId]);
  await context.request(agent.session.load, { sessionId, cwd: folder, mcpServers: [] });
});
assert.equal(said(second), said(first));
