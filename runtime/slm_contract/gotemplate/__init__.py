"""Chat templates of Modelfiles, written in Go's template language, as the Jinja templates that models are served with."""

from slm_contract.gotemplate.errors import TemplateRefused
from slm_contract.gotemplate.translate import passes_through, translate

__all__ = ["TemplateRefused", "passes_through", "translate"]
