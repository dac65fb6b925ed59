"""Reports: pictures and texts of networks, TensorBoard, comparisons, one page about a run.

Torch, matplotlib, networkx, scipy and TensorBoard are imported at use.
"""

from nas.report.cell import Cell
from nas.report.checklist import Item, checklist
from nas.report.comparison import Row, comparison, table, verdict
from nas.report.draw import figure, save
from nas.report.items import Outline
from nas.report.ledger import Record, record
from nas.report.modules import module_outline
from nas.report.networks import Compared, networks
from nas.report.outline import outline
from nas.report.page import page
from nas.report.scatter import scatters
from nas.report.tensorboard import Board, replay
from nas.report.tree import text, tree

__all__ = [
    "Board", "Cell", "Compared", "Item", "Outline", "Record", "Row", "checklist", "comparison", "figure",
    "module_outline", "networks", "outline", "page", "record", "replay", "save", "scatters", "table", "text",
    "tree", "verdict",
]  # fmt: skip
