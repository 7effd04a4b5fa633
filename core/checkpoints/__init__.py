"""Which model a file or a folder is, read without loading it."""
