"""What a call of the trainer leaves to say."""

from __future__ import annotations

from dataclasses import dataclass

from streamtrain.config_train import ExtensionConfig
from streamtrain.train.validation import ValidationResult


@dataclass(frozen=True)
class Summary:
    """How a call of `Trainer.run` ended."""

    step: int
    """Steps done, over all calls, those that were skipped included."""
    next_index: int
    """The first sample that no step has seen."""
    stopped: bool
    """Somebody asked to stop."""
    loss: float | None
    """Mean training loss since the log before the last."""
    validation: ValidationResult | None
    """The last validation of this call."""
    extensions: tuple[ExtensionConfig, ...] = ()
    """Where the number of steps of the run has changed."""
