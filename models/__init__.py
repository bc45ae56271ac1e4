"""Networks and their registry, pure torch."""
