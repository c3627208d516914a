"""Command lines: what users and maintainers run. They use the public names of `zoo`."""
