"""The operator against a real API server: a burst, one at a time, an edit of all, a restart, and rest."""
