"""look(): how a picture tells its lines apart."""

from __future__ import annotations

# Okabe & Ito's colours, which the colour-blind tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
STYLES = ("-", "--", ":")


def look(number: int) -> tuple[str, str]:
    """Colour and style of a line; 24 in all."""
    return COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
