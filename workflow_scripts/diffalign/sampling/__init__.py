"""Images of diffusion models: integration from noise to latents, guidance, class-conditional samples."""
