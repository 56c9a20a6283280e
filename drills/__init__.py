"""Drills: scenarios, faults, virtual time and the simulated branch."""
