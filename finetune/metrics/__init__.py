"""Segmentation and marker metrics, from libraries, with stated conventions."""
