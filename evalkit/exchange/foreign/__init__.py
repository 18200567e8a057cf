"""Readers of other tools' files, one a format: `read(path)` gives a `Foreign`."""
