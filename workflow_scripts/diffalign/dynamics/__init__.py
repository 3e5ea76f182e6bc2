"""What happens along a denoising trajectory: frequencies, features, activations, and when each of them is settled."""
