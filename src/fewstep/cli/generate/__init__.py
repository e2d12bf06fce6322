"""``fewstep generate``: many samples in shards."""
