"""What decides: pure values in, values out. No clock, no socket, no file."""
