"""What the agent shows over HTTP or HTTPS: metrics and health."""
