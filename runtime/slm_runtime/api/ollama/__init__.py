"""Ollama's API, a module an endpoint or a family of them."""

from typing import Final

RELEASE: Final = "0.12.11"
"""Of Ollama, whose API this is: clients ask for it, and some refuse releases older than what they use."""
