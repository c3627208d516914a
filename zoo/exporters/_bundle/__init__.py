"""What lies beside an exported model: a program that runs it without this package, and a page about it."""
