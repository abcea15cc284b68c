import { base, capital, city, freed, key, model, question, tell, vendor } from "./telling.mjs";

const { OpenAI } = vendor("openai");
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, maxRetries: 0 });
const asked = { model, messages: question, temperature: 0, max_completion_tokens: 24 };
const forced = { ...asked, tools: [capital], tool_choice: "required", max_completion_tokens: 60 };

await tell({
  async models() {
    const page = await client.models.list();
    return page.data.map((one) => one.id);
  },
  async chat() {
    const answer = await client.chat.completions.create(asked);
    return { text: answer.choices[0].message.content, tokens: answer.usage.completion_tokens };
  },
  async stream() {
    const stream = await client.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let last;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      last = chunk;
    }
    return { text, tokens: last.usage.completion_tokens };
  },
  async streamedCall() {
    const runner = client.chat.completions.stream(forced);
    const pieces = [];
    runner.on("tool_calls.function.arguments.delta", (event) => pieces.push(event.arguments_delta));
    const final = await runner.finalChatCompletion();
    const [call] = final.choices[0].message.tool_calls;
    return { name: call.function.name, arguments: call.function.arguments, pieces, finish: final.choices[0].finish_reason };
  },
  async toolsRun() {
    const called = [];
    const runner = client.chat.completions.runTools({
      ...asked,
      tools: [
        {
          type: "function",
          function: {
            ...capital.function,
            parse: JSON.parse,
            function: (args) => {
              called.push(args);
              return "Paris";
            },
          },
        },
      ],
      tool_choice: { type: "function", function: { name: "capital" } },
      max_completion_tokens: 60,
    });
    await runner.done();
    return { called, roles: runner.messages.map((message) => message.role) };
  },
  async structured() {
    const format = { type: "json_schema", json_schema: { name: "answer", schema: city, strict: true } };
    const answer = await client.chat.completions.parse({ ...asked, response_format: format, max_completion_tokens: 60 });
    return answer.choices[0].message.parsed;
  },
  async response() {
    const answer = await client.responses.create({ model, input: question[0].content, temperature: 0, max_output_tokens: 24 });
    return { text: answer.output_text, status: answer.status };
  },
  async responseStream() {
    const stream = client.responses.stream({ model, input: question[0].content, temperature: 0, max_output_tokens: 24 });
    const kinds = [];
    for await (const event of stream) kinds.push(event.type);
    return { kinds: [...new Set(kinds)], text: (await stream.finalResponse()).output_text };
  },
  async left() {
    const stream = await client.chat.completions.create({ ...asked, stream: true, max_completion_tokens: 1500, ignore_eos: true });
    for await (const _ of stream) break;
    return freed();
  },
  unknownModel: () => client.chat.completions.create({ ...asked, model: "gpt-4o" }),
  badValue: () => client.chat.completions.create({ ...asked, temperature: "hot" }),
  wrongKey: () => new OpenAI({ baseURL: `${base}/v1`, apiKey: "wrong", maxRetries: 0 }).models.list(),
});
