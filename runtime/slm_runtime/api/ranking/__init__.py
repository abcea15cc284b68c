"""How well texts fit together, in the shapes that Jina's, Cohere's, vLLM's and TEI's clients know."""
