"""One module a verb, imported only when it is chosen."""
