import { base, capital, city, freed, key, model, question, tell, vendor } from "./telling.mjs";

const { Ollama } = vendor("ollama");
const headers = { Authorization: `Bearer ${key}` };
const client = new Ollama({ host: base, headers });
const options = { temperature: 0, num_predict: 24 };

async function joined(stream, text) {
  let whole = "";
  let last;
  for await (const part of stream) {
    whole += text(part);
    last = part;
  }
  return { text: whole, tokens: last.eval_count, done: last.done_reason };
}

await tell({
  async list() {
    return (await client.list()).models.map((one) => one.model);
  },
  async ps() {
    return (await client.ps()).models.map((one) => one.model);
  },
  async show() {
    const { details, capabilities } = await client.show({ model });
    return { details, capabilities };
  },
  async chat() {
    const answer = await client.chat({ model, messages: question, options });
    return { text: answer.message.content, tokens: answer.eval_count, done: answer.done_reason };
  },
  chatStream: async () =>
    joined(await client.chat({ model, messages: question, options, stream: true }), (part) => part.message.content),
  generateStream: async () =>
    joined(await client.generate({ model, prompt: question[0].content, options, stream: true }), (part) => part.response),
  async structured() {
    const limits = { temperature: 0, num_predict: 60 };
    const answer = await client.chat({ model, messages: question, format: city, options: limits });
    return JSON.parse(answer.message.content);
  },
  async called() {
    // A model so small calls a tool when it sees that the same question was answered by a call before.
    const asked = (country) => ({ role: "user", content: `Call capital(${country})` });
    const called = (city) => ({ role: "assistant", content: "", tool_calls: [{ function: { name: "capital", arguments: { city } } }] });
    const messages = [asked("Italy"), called("Italy"), asked("Spain"), called("Spain"), asked("France")];
    const answer = await client.chat({ model, messages, tools: [capital], options: { temperature: 0, num_predict: 40 } });
    return answer.message.tool_calls.map((call) => call.function);
  },
  async aborted() {
    const stream = await client.chat({ model, messages: question, options: { num_predict: 1500 }, stream: true });
    try {
      for await (const _ of stream) client.abort();
    } catch (error) {
      return [error.name, await freed()];
    }
  },
  async pull() {
    return (await client.pull({ model })).status;
  },
  pullOther: () => client.pull({ model: "other" }),
  remove: () => client.delete({ model }),
  unknownModel: () => client.chat({ model: "other", messages: question }),
  unknownModelStream: () => client.chat({ model: "other", messages: question, stream: true }),
  wrongKey: () => new Ollama({ host: base }).list(),
});
