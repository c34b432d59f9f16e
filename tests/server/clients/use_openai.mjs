// openai for JavaScript: chat, stream, parse, tools, embeddings, logprobs, responses.
import assert from "node:assert";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const model = (await client.models.list()).data[0].id;
const asked = { model, messages, max_tokens: 12, temperature: 0 };
const parameters = {
  type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "weather", description: "The weather", parameters, strict: true } }];

const whole = await client.chat.completions.create(asked);
assert.ok(whole.choices[0].message.content);
let text = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
assert.ok(text);
const schema = { name: "city", strict: true, schema: parameters };
const parsed = await client.chat.completions.parse({
  ...asked, max_tokens: 60, response_format: { type: "json_schema", json_schema: schema },
});
assert.equal(typeof JSON.parse(parsed.choices[0].message.content).city, "string");
const called = await client.chat.completions.create({ ...asked, max_tokens: 60, tools, tool_choice: "required" });
assert.deepEqual(Object.keys(JSON.parse(called.choices[0].message.tool_calls[0].function.arguments)), ["city"]);
const stream = client.chat.completions.stream({ ...asked, max_tokens: 60, tools, tool_choice: "required" });
assert.equal((await stream.finalChatCompletion()).choices[0].message.tool_calls[0].function.name, "weather");
const scored = await client.chat.completions.create({ ...asked, logprobs: true, top_logprobs: 2 });
assert.equal(scored.choices[0].logprobs.content[0].top_logprobs.length, 2);
const vectors = await client.embeddings.create({ model, input: ["a cat", "a dog"] });
assert.equal(vectors.data.length, 2);
assert.ok(Math.abs(vectors.data[0].embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-3);
const said = await client.responses.create({ model, input: "Say hi", max_output_tokens: 8 });
assert.ok(said.output_text);
let told = "";
for await (const event of await client.responses.create({ model, input: "Say hi", max_output_tokens: 8, stream: true })) {
  if (event.type === "response.output_text.delta") told += event.delta;
}
assert.ok(told);
