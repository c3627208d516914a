"""The version of this package, in one place."""

VERSION = "0.1.0"
DECODER = 2  # raised when the same image file gives other pixels: what was kept of the older ones is not used again
