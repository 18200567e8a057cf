"""The page on which people label: a small server for this machine, see serving.py."""
