"""Whether the posterior of a run means what it says, and how a wrong one is put right.

Start with `calibration`, `evaluate RUN --calibration`: ranks and coverage of the truth, as numbers
and text (`report`) and as a figure (`figures`). `recalibrate`, the command `calibrate`, learns a
correction from skies of another maker by the arithmetic of `move_fit`; `recalibration` keeps it and
applies it.
"""
