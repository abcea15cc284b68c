"""The API process's HTTP side: what clients see of the runtime."""
