"""Studies of brain MRI: ingest, preprocessing, shard format, readers, phantom cohort."""
