"""Ollama's API, a module an endpoint or a family of them."""

from typing import Final

RELEASE: Final = "0.14.3"
"""Of Ollama, whose API this is: clients ask for it, and some refuse releases older than what they use.

Since 0.13.3 it has OpenAI's responses, since 0.14 Anthropic's messages.
"""
