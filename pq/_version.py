"""The version of pq; ``setup.py`` reads it."""

__version__ = "2.0.0"
