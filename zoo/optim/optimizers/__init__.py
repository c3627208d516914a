"""TODO optimizers."""
