"""Alignment of two representations: preparation, neighbour lists, metrics."""
