"""Models of many families behind one small protocol.

`protocol` is what a loaded model is, `registry` which families there are, `loading` how a checkpoint becomes a model.
Each module of `families` is one family; `networks` has the networks that no library has. What stands beside them is
shared by several families.

Listing the families imports none of their libraries: a family imports torch and the like inside its functions. So a
job of one family never imports the libraries of another.
"""

from diffalign.io.checkpoint_errors import CheckpointError, check_keys
from diffalign.models.loading import load, load_denoiser, load_language, trainable
from diffalign.models.protocol import Denoiser, Loaded, LoadedLanguage, Prediction, Tokenized, Trainable
from diffalign.models.registry import Family, all_families, find_family, module_path
from diffalign.models.tokens import map_tokens, spatial_tokens

__all__ = [
    "CheckpointError",
    "Denoiser",
    "Family",
    "Loaded",
    "LoadedLanguage",
    "Prediction",
    "Tokenized",
    "Trainable",
    "all_families",
    "check_keys",
    "find_family",
    "load",
    "load_denoiser",
    "load_language",
    "map_tokens",
    "module_path",
    "spatial_tokens",
    "trainable",
]
