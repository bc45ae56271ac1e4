"""From sources to a finished shard set: plan, prepare in parallel, resume, merge, verify."""
