#!/bin/sh
# generateObject of Vercel's AI SDK takes a schema, and llama.cpp's servers keep a model to one, so with createOpenAICompatible and a local address one
# would have answers by that schema. What is sent is response_format json_object: the schema is neither in it nor in the prompt, so the
# model has never heard of a field's name, and the client then checks its answer against the schema that it kept. There is a warning on
# the console. supportsStructuredOutputs: true, of the provider, sends it.
# Source: @ai-sdk/openai-compatible 3.0.92 src/chat/openai-compatible-chat-language-model.ts, getArgs (supportsStructuredOutputs).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" 'ai@7.0.173' '@ai-sdk/openai-compatible@3.0.92' 'zod@4.1.13'
cat > "$folder/ask.mjs" <<'NODE'
import { createServer } from "node:http";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
let sent;
const answer = { id: "1", object: "chat.completion", created: 1, model: "m", choices: [{ index: 0, message: { role: "assistant", content: '{"city":"Oslo"}' }, finish_reason: "stop" }] };
const server = createServer((request, response) => {
  let body = "";
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    sent = JSON.parse(body);
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(answer));
  });
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

async function sentWith(settings) {
  const provider = createOpenAICompatible({ name: "local", baseURL: `http://127.0.0.1:${server.address().port}/v1`, ...settings });
  await generateObject({ model: provider("m"), schema: z.object({ city: z.string() }), prompt: "Where?" });
  return { format: sent.response_format.type, schema: JSON.stringify(sent).includes("city") };
}

const plain = await sentWith({});
const told = await sentWith({ supportsStructuredOutputs: true });
server.close();
console.log("version:   ai 7.0.173, @ai-sdk/openai-compatible 3.0.92");
console.log("expected:  a schema that generateObject is given reaches the server");
console.log("behaviour: it does only if the provider was made with supportsStructuredOutputs");
console.log(`seen:      response_format ${plain.format}, the field's name anywhere in the request: ${plain.schema}; told so: ${told.format}, ${told.schema}`);
process.exitCode = plain.format === "json_object" && !plain.schema && told.format === "json_schema" && told.schema ? 0 : 1;
NODE
(cd "$folder" && node ask.mjs)
