"""Manifests to start from, and the demonstration that applies one of them."""
