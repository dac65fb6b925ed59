"""Search spaces: what can be chosen, and the graph that the choices fill. No torch."""

from nas.search_space.architecture import Architecture
from nas.search_space.darts import darts
from nas.search_space.decision import Decision, Table
from nas.search_space.nasbench201 import nasbench201
from nas.search_space.rules import Limit, Rule
from nas.search_space.space import SPACES, Choices, SearchSpace, read, space

__all__ = [
    "SPACES", "Architecture", "Choices", "Decision", "Limit", "Rule", "SearchSpace", "Table", "darts",
    "nasbench201", "read",
    "space",
]  # fmt: skip
