"""Which hardware class a model runs on, and why not another. Pure."""
