"""From a sample number to a study or a crop of it, indexed or streaming."""
