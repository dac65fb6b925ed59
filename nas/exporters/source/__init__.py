"""From a network to Python that a person would write: simplify the graph, find blocks and loops, write them down."""

from nas.exporters.source.closure import Closure
from nas.exporters.source.program import Call, Program, simplified
from nas.exporters.source.writer import Listing, listing

__all__ = ["Call", "Closure", "Listing", "Program", "listing", "simplified"]
