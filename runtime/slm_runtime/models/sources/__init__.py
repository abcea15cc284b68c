"""Where models come from: a URI becomes an artifact whose bytes can be transferred, unpacked and confirmed."""
