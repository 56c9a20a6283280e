"""Changeover: the continuity agent of a branch site."""

__version__ = "0.1.0"
