"""Wire clients: one protocol a file, no judgement."""
