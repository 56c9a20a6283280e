"""What every test shares: hypothesis keeps to a seed, so that a red run is red again."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings

# `--hypothesis-profile=search` looks for new examples; the gate walks the same ones each time. The machine that runs
# the gate may be slow for a second, so an example has no deadline of its own.
settings.register_profile("gate", derandomize=True, database=None, deadline=None, print_blob=True)
settings.register_profile("search", max_examples=2000, deadline=timedelta(seconds=5))
settings.load_profile("gate")
