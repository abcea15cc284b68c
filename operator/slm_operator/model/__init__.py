"""What is served: where it comes from, and how much memory it takes. Pure."""
