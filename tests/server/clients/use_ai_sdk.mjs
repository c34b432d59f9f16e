// Vercel's AI SDK by its provider for servers like OpenAI's: text, stream, object, tools, embeddings.
import assert from "node:assert";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, jsonSchema, streamObject, streamText, tool } from "ai";

const provider = createOpenAICompatible({
  name: "here", baseURL: `${process.argv[2]}/v1`, supportsStructuredOutputs: true, includeUsage: true,
});
const model = provider("any");
const cold = { model, temperature: 0, maxOutputTokens: 100, maxRetries: 0 };
const prompt = "What is the capital of France?";
const city = jsonSchema({
  type: "object", properties: { name: { type: "string", maxLength: 12 } }, required: ["name"], additionalProperties: false,
});
const weather = tool({ description: "The weather", inputSchema: city, execute: async ({ name }) => `It rains in ${name}.` });

const whole = await generateText({ ...cold, system: "Be short.", prompt });
assert.ok(whole.text);
assert.ok(whole.usage.outputTokens > 0);
const streamed = streamText({ ...cold, prompt });
let text = "";
for await (const part of streamed.textStream) text += part;
assert.ok(text);
assert.ok((await streamed.usage).outputTokens > 0);
const made = await generateObject({ ...cold, prompt: "Describe Paris.", schema: city });
assert.equal(typeof made.object.name, "string");
const growing = streamObject({ ...cold, prompt: "Describe Paris.", schema: city });
for await (const part of growing.partialObjectStream) assert.equal(typeof part, "object");  // nothing comes unread
assert.equal(typeof (await growing.object).name, "string");
const called = await generateText({ ...cold, prompt: "The weather in Paris?", tools: { weather }, toolChoice: "required" });
assert.match(called.toolResults[0].output, /^It rains in /);
const calling = streamText({ ...cold, prompt: "The weather in Paris?", tools: { weather }, toolChoice: { type: "tool", toolName: "weather" } });
for await (const part of calling.fullStream) assert.notEqual(part.type, "error");
assert.equal((await calling.toolCalls)[0].toolName, "weather");
const vectors = await embedMany({ model: provider.embeddingModel("any"), values: ["a cat", "a dog"], maxRetries: 0 });
assert.equal(vectors.embeddings.length, 2);
