"""One module a family of encoders."""
