"""Gliomas that grow in a brain."""
