"""The Kubernetes API, as far as the operator needs it: `protocol` says what, `client` does it."""
