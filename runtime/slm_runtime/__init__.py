"""The runtime: fetches one model, serves it to OpenAI and Ollama clients."""
