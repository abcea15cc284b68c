"""`kubectl slm`: what people do every day with small language models in a cluster, from their terminal."""
