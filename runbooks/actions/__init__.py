"""Verbs that runbooks use, one file each."""
