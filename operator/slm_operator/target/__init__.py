"""Which revision shall run: keep the one that does, go on to another, or go back. Pure."""
