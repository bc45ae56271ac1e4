"""Folder layouts, one module each, that turn files into studies."""

from gliomoe.data_shards.ingest.layouts import LAYOUTS, find_studies

__all__ = ["LAYOUTS", "find_studies"]
