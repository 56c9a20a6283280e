"""The simulated branch: in-process stand-ins for the equipment of a site."""
