"""Models: where they come from, what their headers say, where they lie."""
