"""Fixtures for every tier."""

from hypothesis import settings

from tests.cluster.fixtures import cluster, control_plane, workers

__all__ = ["cluster", "control_plane", "workers"]

# A machine that stalls must not make a property false, and what fails once must fail again.
settings.register_profile("here", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("here")
