"""Cross-entropy of class labels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from diffalign.models import Trainable
from diffalign.training.batches import Batch
from diffalign.training.objectives.objective import Objective


def classification(network: Trainable) -> Objective:
    """Mean cross-entropy in nats; its part ``accuracy`` is the share of the batch whose label has the highest logit."""

    def measure(batch: Batch, step: int) -> Mapping[str, Tensor]:
        logits, labels = network.run(batch.tensors["pixels"]), batch.tensors["labels"]
        correct = (logits.detach().argmax(dim=1) == labels).float().mean()
        return {"loss": functional.cross_entropy(logits, labels), "accuracy": correct}

    return Objective(("accuracy",), measure)
