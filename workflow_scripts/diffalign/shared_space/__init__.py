"""One feature space for all models: affinities to landmarks, shared encoders, linear maps, and spectral pictures."""
