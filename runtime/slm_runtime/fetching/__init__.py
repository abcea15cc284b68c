"""Fetching: transfer, verify, publish; retry what helps, remember what doesn't, report all of it."""
