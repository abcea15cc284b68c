"""Anthropic's API, for its clients and the agents built on them: `/v1/messages` and its count of tokens."""
