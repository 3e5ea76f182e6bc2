"""Exact nearest neighbours: bounds, compiled loops, products of NumPy and torch."""
