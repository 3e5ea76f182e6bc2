"""Sets of images: where they come from, how they become squares, what is known about each."""
