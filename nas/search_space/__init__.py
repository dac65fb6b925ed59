"""Search spaces: what can be chosen, and the graph that the choices fill. No torch."""

from nas.search_space.architecture import Architecture
from nas.search_space.blocks import blocks
from nas.search_space.chain import chain
from nas.search_space.darts import darts
from nas.search_space.decision import Decision, Table
from nas.search_space.enas import enas_macro, enas_micro
from nas.search_space.mobile import mobile
from nas.search_space.nasbench101 import nasbench101
from nas.search_space.nasbench201 import nasbench201
from nas.search_space.nasbench_sss import nasbench_sss
from nas.search_space.nasnet import amoebanet, nasnet, pnas
from nas.search_space.operations import OPERATIONS, operations
from nas.search_space.resnet_elastic import resnet_elastic
from nas.search_space.rules import Limit, Rule
from nas.search_space.shufflenet import shufflenet
from nas.search_space.space import SPACES, Choices, SearchSpace, read, space
from nas.search_space.vit import vit

__all__ = [
    "OPERATIONS", "SPACES", "Architecture", "Choices", "Decision", "Limit", "Rule", "SearchSpace", "Table",
    "amoebanet", "blocks", "chain", "darts", "enas_macro", "enas_micro", "mobile", "nasbench101",
    "nasbench201", "nasbench_sss", "nasnet", "operations", "pnas", "read", "resnet_elastic", "shufflenet",
    "space", "vit",
]  # fmt: skip
