"""TODO rates."""
