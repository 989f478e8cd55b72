"""The loss of a predicted label, and the moments of the labels that scale it."""

from __future__ import annotations

import torch
from torch import Tensor

from streamtrain.config import LabelConfig

SMALLEST_LABEL_STD = {"log10": 0.1, "linear": 1.0}
"""Floor of a bin's standard deviation [dex or halos]: a bin that happened to be constant in the
calibration samples must not get an unbounded weight."""


def label_std_floor(label: LabelConfig) -> float:
    """Smallest standard deviation that a label's bin is scaled by [label units]."""
    return SMALLEST_LABEL_STD[label.scale]


def label_loss(
    prediction_bn: Tensor, label_bn: Tensor, label_std: Tensor, scale: str = "log10"
) -> Tensor:
    """Mean squared error of the label, a scalar on the device.

    prediction_bn, label_bn: float32 [B, n_bins]; label_std: float32 [n_bins]
    scale: 'log10', the error is in dex; 'linear', it is in standard deviations of each bin, whose
    counts span many decades.
    """
    error = prediction_bn.float() - label_bn
    if scale == "linear":
        error = error / label_std
    return torch.mean(error * error)
