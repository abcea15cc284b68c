"""Questions whose answers are known: whether the model still answers as it did."""
