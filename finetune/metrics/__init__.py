"""Metrics of segmentation, lesions, markers and uncertainty, with stated conventions."""
