"""What becomes of a manifest, before anybody applies it."""
