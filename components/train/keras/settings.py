"""The hyperparameters of the Keras trainer; those that the torch trainer has too mean the same there."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from components.train.hyperparameters import validated

if TYPE_CHECKING:
    import numpy as np

LEAST_BATCH, MOST_BATCH = 32, 8192
_STEPS = 50  # of an epoch, about


class Settings(BaseModel):
    """What may be chosen, with defaults.

    Attributes:
        learning_rate: of AdamW.
        weight_decay: of AdamW, on everything but biases and norms.
        width: of the residual stream.
        blocks: how many residual blocks.
        dropout: inside the blocks.
        epochs: at most.
        patience: epochs without a lower loss on the valid split after which the fit stops; its best weights are kept.
        batch_size: rows per step, over all devices; 0 goes by the number of rows.
        precision: of the matrix products on the device; ``auto`` is bf16 or fp16 where a GPU has it, else fp32.
        class_weight: ``balanced`` makes every class weigh the same; or a weight by class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    weight_decay: float = Field(default=1e-2, ge=0, le=10)
    width: int = Field(default=128, ge=1, le=8192)
    blocks: int = Field(default=2, ge=0, le=100)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    epochs: int = Field(default=100, ge=1)
    patience: int = Field(default=10, ge=1)
    batch_size: int = Field(default=0, ge=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    class_weight: Literal["none", "balanced"] | dict[int, float] = "none"

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Settings of the given values.

        Raises:
            BadInput: names the hyperparameter and what is wrong with it.
        """
        return validated(cls, values, "keras")

    def batch(self, rows: int) -> int:
        """Rows per step: what was chosen, or a power of two that makes about 50 steps, from 32 to 8,192."""
        if self.batch_size:
            return min(self.batch_size, rows)
        nearest = 1 << round(math.log2(max(1.0, rows / _STEPS)))
        return min(max(nearest, LEAST_BATCH), MOST_BATCH, rows)

    def weights(self, target: "np.ndarray[Any, Any]", classes: int) -> "np.ndarray[Any, Any] | None":
        """The weight of each class, float32 ``(classes,)``; None where all count the same.

        Args:
            target: class indices of the train split; every class has a row.
            classes: how many there are.
        """
        import numpy as np

        if self.class_weight == "none" or not classes:
            return None
        if self.class_weight == "balanced":
            counts = np.bincount(target, minlength=classes)
            return np.asarray(len(target) / (classes * counts), "float32")
        return np.array([self.class_weight.get(index, 1.0) for index in range(classes)], "float32")
