"""Command line and cluster scripts."""
