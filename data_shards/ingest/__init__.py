"""Folder layouts, one module each, that turn files into studies."""
