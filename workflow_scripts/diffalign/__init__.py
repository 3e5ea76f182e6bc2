"""diffalign: how alike are the representations of vision, diffusion and language models, and of people?"""

__version__ = "0.1.0"
