"""Training: a loss, a schedule, and a loop that gives the same weights again, also after it was killed.

Every draw is keyed by the seed of the model, a purpose and the step, and the order of images by seed, epoch and name.
So trainings with the same seed see the same images, times and noise at a step, whatever their loss, and no state of a
generator needs to be kept.
"""

from diffalign.training.batches import Batch, HeldImages, StreamedImages
from diffalign.training.loop import TrainingError, train

__all__ = ["Batch", "HeldImages", "StreamedImages", "TrainingError", "train"]
