"""What the agent shows over HTTP, on this machine alone."""
