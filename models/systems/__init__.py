"""Published systems, one module each."""
