"""What runs the core: the single-writer loop, the poller, the journal, the executor."""
