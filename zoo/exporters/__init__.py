"""TODO exporters."""
