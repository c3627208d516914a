"""For those who come from elsewhere: what other libraries call things, translated."""
