#!/bin/sh
# A schema for llama.createGrammarForJsonSchema of node-llama-cpp may hold `anyOf`, as Zod and Pydantic write unions and what may be null; one would
# expect its alternatives, any JSON, or an error. Where node-llama-cpp doesn't know a schema's keywords its grammar allows null and nothing
# else, so an optional object, an empty schema or an `allOf` is null in each answer. A string with a `format` that it doesn't know (email,
# uri, uuid) may only be "". The model has no choice, the answer is checked and found right, and there is no warning.
# Source: node-llama-cpp 3.22.1 dist/utils/gbnfJson/utils/getGbnfJsonTerminalForGbnfJsonSchema.js (new GbnfNull at its end);
# dist/utils/gbnfJson/terminals/GbnfFormatString.js. Asked without its binaries: grammars are made in JavaScript.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$folder" 'node-llama-cpp@3.22.1' 'zod@4.1.13'
cat > "$folder/grammars.mjs" <<'NODE'
import { getGbnfGrammarForGbnfJsonSchema } from "./node_modules/node-llama-cpp/dist/utils/gbnfJson/getGbnfGrammarForGbnfJsonSchema.js";
import { z } from "zod";

/** What an answer may be: the grammar's first rule, with the rule that it names in place of its name, without the end of the answer. */
function allowed(type) {
  const rules = Object.fromEntries(getGbnfGrammarForGbnfJsonSchema(z.toJSONSchema(type)).split("\n").map((line) => line.split(" ::= ")));
  const root = rules.root.split(' "\\n\\n\\n\\n"')[0];
  return rules[root] ?? root;
}

const person = z.object({ name: z.string() });
const seen = Object.entries({
  "a person or null": person.nullable(),
  "a person or a name": z.union([person, z.string()]),
  "anything": z.any(),
  "an e-mail address": z.email(),
  "a URL": z.url(),
}).map(([what, type]) => `${what}: ${allowed(type)}`);
console.log("version:   node-llama-cpp 3.22.1, zod 4.1.13");
console.log("expected:  a grammar allows what its schema does, or more");
console.log("behaviour: of what it doesn't know it allows null alone, or the empty string");
console.log(`seen:      ${seen.join("; ")}`);
process.exitCode = seen.join() === [
  'a person or null: "null"', 'a person or a name: "null"', 'anything: "null"', 'an e-mail address: "\\"\\""', 'a URL: "\\"\\""',
].join() ? 0 : 1;
NODE
(cd "$folder" && node grammars.mjs)
