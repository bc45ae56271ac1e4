"""Brains and heads: tissue maps under random deformation, and what ails them but glioma."""
