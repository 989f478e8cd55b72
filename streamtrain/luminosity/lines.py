"""Emission lines: their rest frequencies and their names."""

from __future__ import annotations

CO10_GHZ = 115.271
"""CO(1-0); CO(J, J-1) is J times as high, to 0.1 % for J = 13."""
CII_GHZ = 1900.537
"""Rest frequency of [CII] 158 um [GHz]."""
LYA_GHZ = 2466067.7
"""Rest frequency of Lyman-alpha, 1215.67 A [GHz]."""

LINES = {
    **{CO10_GHZ * j: f"CO({j}-{j - 1})" for j in range(1, 14)},
    CII_GHZ: "[CII]",
    LYA_GHZ: "Lyman-alpha",
    1.420406: "HI 21 cm",
    492.1607: "[CI](1-0)",
    809.3420: "[CI](2-1)",
    1461.131: "[NII] 205 um",
    2060.069: "[OI] 146 um",
    3393.006: "[OIII] 88 um",
    456679.0: "H-alpha",
    598599.0: "[OIII] 5008 A",
    616517.0: "H-beta",
    804062.0: "[OII] 3728 A",
}
"""Names by rest frequency [GHz], as in vacuum."""
TOLERANCE = 2e-3
"""Rest frequencies nearer than this, relative, are those of one line."""


def line_name(nu_rest_GHz: float) -> str:
    """'CO(1-0)', or the frequency of a line that has no name here."""
    for known, name in LINES.items():
        if abs(nu_rest_GHz / known - 1.0) < TOLERANCE:
            return name
    return f"{nu_rest_GHz:.6g} GHz"
