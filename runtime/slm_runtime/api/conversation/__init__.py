"""What is a conversation: its prompt, its form, and what a model writes taken apart into text, thoughts and calls."""
