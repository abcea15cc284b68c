"""Measurements against the peers, each a ratio within one run; `python -m bench` writes docs/benchmarks.md."""
