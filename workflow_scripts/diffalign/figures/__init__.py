"""How figures look: the style of all, grids of panels, curves, maps, and what figures of models and people share."""
