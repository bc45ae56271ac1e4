"""Folder layouts, one module each, that turn files into studies."""

from gliomoe.data_shards.ingest.layouts import LAYOUTS, Survey, find_studies, survey

__all__ = ["LAYOUTS", "Survey", "find_studies", "survey"]
