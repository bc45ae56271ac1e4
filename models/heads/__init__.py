"""Segmentation decoder and marker heads."""
