"""How a token is chosen from a row of logits: one sampler for all engines.

`sampler` is the chain; `truncation`, `penalties`, `constraint` and `logprobs` are its parts; `text` turns
the chosen tokens into text that may be shown.
"""
