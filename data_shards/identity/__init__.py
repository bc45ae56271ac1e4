"""Whether two scans are the same: by content, by looks, and what weights have seen."""
