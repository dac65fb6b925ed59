"""From a network to Python that a person would write: simplify, find blocks and loops, write."""

from nas.exporters.source.closure import Closure
from nas.exporters.source.layout import called, literal
from nas.exporters.source.program import Call, Program, simplified
from nas.exporters.source.writer import Listing, listing

__all__ = ["Call", "Closure", "Listing", "Program", "called", "listing", "literal", "simplified"]
