// Runs the steps of a client's script, one after the other, and prints what each answered as one JSON document.
import { createRequire } from "node:module";

export const base = process.env.SLM_BASE;
export const key = process.env.SLM_KEY;
export const model = process.env.SLM_MODEL;
export const vendor = createRequire(process.env.SLM_PACKAGES);

export const question = [{ role: "user", content: "What is the capital of France? Answer in one sentence." }];
export const city = {
  type: "object",
  properties: { city: { type: "string", maxLength: 20 } },
  required: ["city"],
  additionalProperties: false,
};
export const capital = {
  type: "function",
  function: { name: "capital", description: "The capital of a country.", parameters: city },
};

// Resolves when the server generates for nobody any more; a sequence that nobody reads would run for a minute.
export async function freed() {
  const headers = { Authorization: `Bearer ${key}` };
  for (;;) {
    const metrics = await (await fetch(`${base}/api/metrics`, { headers })).text();
    if (/^slm_runtime_sequences_running 0/m.test(metrics)) return "freed";
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function tell(steps) {
  const told = {};
  for (const [name, step] of Object.entries(steps)) {
    try {
      told[name] = await step();
    } catch (error) {
      const { status, status_code, code, param, message } = error;
      told[name] = { raised: error.constructor.name, status: status ?? status_code, code, param, message };
    }
  }
  console.log(JSON.stringify(told));
}
