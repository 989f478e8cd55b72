"""The loss of a predicted label."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def label_loss(
    prediction_bn: Tensor,
    label_bn: Tensor,
    label_std: Tensor,
    form: Literal["log10", "linear", "class"] = "log10",
) -> Tensor:
    """Mean squared error of the label, or cross-entropy of a class, a scalar on the device.

    prediction_bn, label_bn: float32 [B, num_outputs]; label_std: float32 [num_outputs]
    form: `Label.form`. 'log10': the error is in dex; 'linear': it is in standard deviations of each
    bin, whose values span many decades; 'class': predictions are logits, labels are one-hot [nat].
    """
    if form == "class":
        return cross_entropy(prediction_bn.float(), label_bn)
    error = prediction_bn.float() - label_bn
    if form == "linear":
        error = error / label_std
    return torch.mean(error * error)
