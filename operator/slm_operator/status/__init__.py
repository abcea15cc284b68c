"""What users and tools read: conditions as a chain of checks, details as observed. Pure."""
