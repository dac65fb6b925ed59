"""Kind: what sort of operation something is, and the colours that show it. Torch is imported at use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from nas.graph import ZEROS
from nas.isomorphism import IDENTITIES


@dataclass(frozen=True)
class Kind:
    """A sort of operation: its name in a legend, a light fill that carries dark text, and its outline.

    The fills stay apart for readers who do not tell all hues apart (a test simulates them), and an
    operation's name always stands on its fill: in print without colour, the pictures stay readable.
    """

    name: str
    fill: str
    line: str


NEUTRAL = Kind("", "#ffffff", "#4d4d4d")
CELL = Kind("cell, drawn on its own", "#fffdf4", "#1a1a1a")
KINDS = {
    "conv": Kind("convolution", "#a1c4f6", "#24507f"),
    "separable": Kind("separable, depthwise", "#f5de9d", "#b06f06"),
    "pool": Kind("pooling", "#d9facf", "#3d7a2a"),
    "identity": Kind("identity", "#f3f3f3", "#737373"),
    "attention": Kind("attention", "#d6b5dc", "#74418f"),
    "mobile": Kind("mobile block", "#f8af89", "#8f3a14"),
    "residual": Kind("residual block", "#e9f181", "#6d7a00"),
    "inception": Kind("inception", "#8ce0d8", "#14706c"),
    "dense": Kind("dense block", "#dfbda1", "#6f4823"),
    "gates": Kind("gate, dynamic convolution", "#fec2d7", "#86336a"),
    "norm": Kind("norm, activation", "#dde0f3", "#45567a"),
    "linear": Kind("linear layer", "#c0c0c0", "#3b3b3b"),
    "own": Kind("own operation", "#ecd3ff", "#8a1c8a"),
}
FILES = {  # the file of nas.primitives that an operation comes from -> its kind, where the names differ
    "convnext": "residual",
    "head": "linear",
    "layers": "norm",
    "regular": "norm",
    "shuffle": "mobile",
    "window": "attention",
}


WORDS = {  # what a class or a file is called -> its kind
    "pool": "pool",
    "linear$|classifier|head$|mlp": "linear",
    "norm|relu|gelu|silu|swish|sigmoid|tanh|dropout|softmax|flatten": "norm",
    "identity": "identity",
    "squeeze|gate|selective|dynamic": "gates",
    "attention|transformer|encoder|vit|swin|window": "attention",
    "inception|googlenet": "inception",
    "dense|transition": "dense",
    "mobile|inverted|shuffle|fire|mnas|efficient": "mobile",
    "depthwise|separable|sep_conv": "separable",
    "resid|resn|bottleneck|convnext": "residual",
    "conv|preprocess|reduction": "conv",
}


def kind_of_words(name: str) -> str:
    """The kind that the name of a class or file suggests, "" for none."""
    return next((kind for words, kind in WORDS.items() if re.search(words, name.lower())), "")


@cache
def kind_of(op: str) -> str:
    """The key in `KINDS` of a node's operation; a new file of primitives is a kind of its own name."""
    from nas.primitives import resolve

    if op in IDENTITIES or op in ZEROS:
        return "identity"
    primitive = resolve(op)
    made_by = primitive.build.__name__
    if primitive.kind == "conv" and ("separable" in made_by or "depthwise" in made_by):
        return "separable"
    if primitive.kind == "head":
        return "pool" if "pool" in made_by else "norm" if made_by == "bn_relu" else "linear"
    kind = FILES.get(primitive.kind, primitive.kind)
    if kind in KINDS:
        return kind
    return kind_of_words(op) or kind


def look(key: str) -> Kind:
    """The colours of a kind; of a kind that has none yet, neutral ones."""
    return KINDS.get(key) or Kind(key, NEUTRAL.fill, NEUTRAL.line)
