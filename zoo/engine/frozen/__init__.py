"""TODO frozen."""
