"""Revisions: what pods are made of, what was tried, and where that is kept. Pure."""
