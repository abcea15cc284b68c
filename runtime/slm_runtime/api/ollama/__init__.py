"""Ollama's API, a module an endpoint or a family of them."""
