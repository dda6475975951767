"""Mean and covariance of features from running sums, in constant memory."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

Half = Literal["even", "odd"]


@dataclass
class Moments:
    """Sums over features, separate for even-indexed and odd-indexed images."""

    count: Int64[Tensor, "half=2"]
    total: Float64[Tensor, "half=2 dimension"]
    product: Float64[Tensor, "half=2 dimension dimension"]

    @classmethod
    def zero(cls, dimension: int, device: torch.device) -> "Moments":
        """Return the sums over no images."""
        options = {"dtype": torch.float64, "device": device}
        return cls(
            torch.zeros(2, dtype=torch.int64),
            torch.zeros(2, dimension, **options),
            torch.zeros(2, dimension, dimension, **options),
        )

    def add(self, features: Float[Tensor, "batch dimension"], first: int) -> None:
        """Add consecutive images; the first has index `first`."""
        for half in (0, 1):
            rows = features[(half - first) % 2 :: 2].double()
            self.count[half] += len(rows)
            self.total[half] += rows.sum(0)
            self.product[half].addmm_(rows.T, rows)

    def statistics(self, half: Half | None = None) -> dict[str, np.ndarray]:
        """Return the mean and the unbiased covariance of a half, or of all images, in torch-fidelity's format."""
        which = {"even": [0], "odd": [1], None: [0, 1]}[half]
        count = int(self.count[which].sum())
        mean = self.total[which].sum(0) / count
        scatter = self.product[which].sum(0) - count * torch.outer(mean, mean)
        return {"mu": mean.cpu().numpy(), "sigma": (scatter / (count - 1)).cpu().numpy()}
