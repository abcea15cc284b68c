"""A deployed model, asked."""
