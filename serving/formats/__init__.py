"""Model formats: reading a version's artifact, loading it, and testing what was loaded."""
