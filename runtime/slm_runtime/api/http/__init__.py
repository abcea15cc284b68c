"""What is HTTP: connections, bodies, routing, keys, origins, errors, event streams."""
