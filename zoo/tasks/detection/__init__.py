"""TODO detection."""
