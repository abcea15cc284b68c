"""Foundry Local's configuration: JSON in, an SLMDeployment out, and by line what could not be kept."""

from kubectl_slm.others.foundry.convert import configure

__all__ = ["configure"]
