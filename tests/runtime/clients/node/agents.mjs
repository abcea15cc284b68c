import { base, key, model, tell, vendor } from "./telling.mjs";

const Anthropic = vendor("@anthropic-ai/sdk");
const { generateObject, generateText, stepCountIs, streamText, tool } = vendor("ai");
const { createAnthropic } = vendor("@ai-sdk/anthropic");
const { createOpenAI } = vendor("@ai-sdk/openai");
const { createOpenAICompatible } = vendor("@ai-sdk/openai-compatible");
const { z } = vendor("zod");

globalThis.AI_SDK_LOG_WARNINGS = false;
const plain = "Say something.";
const question = "What is the weather in the capital of France?";
const openai = createOpenAI({ baseURL: `${base}/v1`, apiKey: key });
const compatible = createOpenAICompatible({ name: "slm", baseURL: `${base}/v1`, apiKey: key, supportsStructuredOutputs: true });
const anthropic = createAnthropic({ baseURL: `${base}/v1`, apiKey: key });
const models = {
  responses: openai.responses(model),
  chat: openai.chat(model),
  compatible: compatible(model),
  anthropic: anthropic(model),
};

function tools(used) {
  return {
    capital: tool({
      description: "The capital of a country.",
      inputSchema: z.object({ country: z.string() }),
      execute: async ({ country }) => (used.push(["capital", country]), "Paris"),
    }),
    weather: tool({
      description: "The weather in a city.",
      inputSchema: z.object({ city: z.string(), days: z.number() }),
      execute: async ({ city, days }) => (used.push(["weather", city, days]), "Rain."),
    }),
  };
}

async function each(run) {
  const told = {};
  for (const [name, one] of Object.entries(models)) told[name] = await run(one);
  return told;
}

const client = new Anthropic({ baseURL: base, apiKey: key, maxRetries: 0 });
const asked = { model, max_tokens: 200 };
const offered = [
  { name: "capital", input_schema: { type: "object", properties: { country: { type: "string" } } } },
  { name: "weather", input_schema: { type: "object", properties: { city: { type: "string" }, days: { type: "integer" } } } },
];

await tell({
  chat: () => each(async (one) => (await generateText({ model: one, prompt: plain, maxRetries: 0 })).text),
  stream: () =>
    each(async (one) => {
      const streamed = streamText({ model: one, prompt: plain, maxRetries: 0 });
      let text = "";
      for await (const piece of streamed.textStream) text += piece;
      return text;
    }),
  tools: () =>
    each(async (one) => {
      const used = [];
      const answer = await generateText({ model: one, prompt: question, tools: tools(used), stopWhen: stepCountIs(5), maxRetries: 0 });
      return { text: answer.text, used };
    }),
  streamedTools: () =>
    each(async (one) => {
      const used = [];
      const streamed = streamText({ model: one, prompt: question, tools: tools(used), stopWhen: stepCountIs(5), maxRetries: 0 });
      let deltas = 0;
      for await (const part of streamed.fullStream) {
        if (part.type === "error") throw part.error;
        deltas += part.type === "tool-input-delta";
      }
      return { text: await streamed.text, used, pieces: deltas > 10 };
    }),
  // Anthropic's provider has a model that it doesn't know by name call a tool of its own instead.
  structured: () =>
    each(async (one) => {
      if (one === models.anthropic) return null;
      const schema = z.object({ city: z.string(), days: z.number() });
      return (await generateObject({ model: one, schema, prompt: plain, maxRetries: 0 })).object;
    }),
  async message() {
    const answer = await client.messages.create({ ...asked, messages: [{ role: "user", content: plain }] });
    return { text: answer.content[0].text, stop: answer.stop_reason };
  },
  async messageStream() {
    const stream = client.messages.stream({ ...asked, messages: [{ role: "user", content: plain }] });
    return await stream.finalText();
  },
  async messageTools() {
    const messages = [{ role: "user", content: question }];
    const used = [];
    for (let round = 0; round < 5; round++) {
      const pieces = [];
      const stream = client.messages.stream({ ...asked, messages, tools: offered });
      stream.on("inputJson", (piece) => pieces.push(piece));
      const answer = await stream.finalMessage();
      messages.push({ role: "assistant", content: answer.content });
      const calls = answer.content.filter((block) => block.type === "tool_use");
      if (!calls.length) return { text: answer.content[0].text, used };
      used.push(...calls.map((call) => ({ name: call.name, input: call.input, pieces: pieces.length > 5 })));
      messages.push({ role: "user", content: calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: "Paris" })) });
    }
  },
});
