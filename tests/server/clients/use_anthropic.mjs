// anthropic for JavaScript: messages, stream, a forced tool, a stop sequence, count_tokens, models.
import assert from "node:assert";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const asked = { model: "any", max_tokens: 24, temperature: 0, messages };
const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ name: "weather", description: "The weather", input_schema }];

const whole = await client.messages.create(asked);
assert.ok(whole.content[0].text);
const stream = client.messages.stream(asked);
let text = "";
stream.on("text", (delta) => (text += delta));
const final = await stream.finalMessage();
assert.equal(final.content[0].text, text);
assert.ok(final.usage.output_tokens > 0);
const called = await client.messages.create({ ...asked, max_tokens: 60, tools, tool_choice: { type: "tool", name: "weather" } });
assert.equal(called.stop_reason, "tool_use");
assert.deepEqual(Object.keys(called.content.at(-1).input), ["city"]);
const calling = client.messages.stream({ ...asked, max_tokens: 60, tools, tool_choice: { type: "any" } });
assert.equal((await calling.finalMessage()).content.at(-1).name, "weather");
const stopped = await client.messages.create({ ...asked, stop_sequences: [" "] });
assert.equal(stopped.stop_reason, "stop_sequence");
assert.ok((await client.messages.countTokens({ model: "any", messages })).input_tokens > 5);
assert.ok((await client.models.list()).data[0].id);
await assert.rejects(client.messages.create({ ...asked, messages: [] }), Anthropic.BadRequestError);
