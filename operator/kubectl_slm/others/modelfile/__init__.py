"""Ollama's Modelfiles: text in, an SLMDeployment out, and by line what could not be kept."""

from kubectl_slm.others.modelfile.convert import convert
from kubectl_slm.others.modelfile.parser import decode, parse

__all__ = ["convert", "decode", "parse"]
