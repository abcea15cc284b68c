"""The pod: what it is told, and the template it is made from. Pure."""
