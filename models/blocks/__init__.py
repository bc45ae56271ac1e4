"""Named blocks of the published systems, one module each."""
