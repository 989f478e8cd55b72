"""Emission lines: their rest frequencies and their names."""

from __future__ import annotations

CO10_GHZ = 115.271
"""CO(1-0); CO(J, J-1) is J times as high, to 0.1 % for J = 13."""
CII_GHZ = 1900.537
"""[CII] 158 um."""
LYA_GHZ = 2466067.7
"""Lyman-alpha, 1215.67 A."""

LINES = {
    **{CO10_GHZ * j: f"CO({j}-{j - 1})" for j in range(1, 14)},
    CII_GHZ: "[CII]",
    LYA_GHZ: "Lyman-alpha",
}
"""Names by rest frequency [GHz]."""
TOLERANCE = 2e-3
"""Rest frequencies nearer than this, relative, are those of one line."""


def line_name(nu_rest_GHz: float) -> str:
    """'CO(1-0)', or the frequency of a line that has no name here."""
    for known, name in LINES.items():
        if abs(nu_rest_GHz / known - 1.0) < TOLERANCE:
            return name
    return f"{nu_rest_GHz:.6g} GHz"
