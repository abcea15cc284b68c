"""OpenAI's API, a module an endpoint."""
