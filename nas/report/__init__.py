"""Reports: pictures and texts of networks, TensorBoard, the comparison with controls, one page about a run.

Matplotlib, networkx and TensorBoard are imported at use.
"""

from nas.report.cell import Cell, cells, text
from nas.report.checklist import Item, checklist
from nas.report.comparison import Row, comparison, table, verdict
from nas.report.draw import figure, save
from nas.report.ledger import Record, record
from nas.report.page import page
from nas.report.tensorboard import Board, replay

__all__ = [
    "Board", "Cell", "Item", "Record", "Row", "cells", "checklist", "comparison", "figure", "page", "record",
    "replay", "save", "table", "text", "verdict",
]  # fmt: skip
