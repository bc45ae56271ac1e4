"""Networks and their registry, pure torch."""

from gliomoe.models.hub import load_pretrained
from gliomoe.models.registry import create_model, list_models

__all__ = ["create_model", "list_models", "load_pretrained"]
