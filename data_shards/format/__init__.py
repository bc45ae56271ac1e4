"""The shard format: frames, records, tar members, shards, index and `dataset.json`."""
