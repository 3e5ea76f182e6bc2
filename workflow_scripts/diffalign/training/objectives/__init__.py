"""What a training descends, one module a loss; `alignment` is a part beside that of flow matching."""

from diffalign.training.objectives.objective import Objective

__all__ = ["Objective"]
