"""One forward pass, every layer: inputs, noise levels, taps, and the loop that pools features."""
