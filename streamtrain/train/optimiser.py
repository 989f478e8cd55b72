"""AdamW and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from streamtrain.config import TrainConfig


def build_optimiser(network: nn.Module, train: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101); weights decay, biases do not."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    biases = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": train.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.learning_rate, fused=True)


def learning_rate(step: int, train: TrainConfig) -> float:
    """Rate of the update after `step` updates: linear warm-up, then a cosine to zero.

    A function of the step alone, so it needs no state.
    """
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    progress = (step - train.warmup_steps) / (train.steps - train.warmup_steps)
    return train.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
