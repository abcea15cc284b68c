"""What a real API server does, as cases that it and the simulated one both have to pass."""
