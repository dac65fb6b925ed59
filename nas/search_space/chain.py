"""A chain of layers, each with an operation of its own: the simplest space, to read first.

One decision, a table with a row for each layer and a column for each operation.
"""

from __future__ import annotations

from nas.graph import Builder, Hole, Shape
from nas.search_space.decision import Decision
from nas.search_space.operations import operations as named
from nas.search_space.space import SPACES, Count, SearchSpace

OPERATIONS = ("skip_connect", "conv_1x1", "conv_3x3", "conv_5x5", "sep_conv_3x3", "sep_conv_5x5")


@SPACES.register("chain", network={"channels": 32}, small={"channels": 4})
def chain(
    *,
    channels: Count = 16,
    layers: Count = 6,
    operations: str | tuple[str, ...] = OPERATIONS,
    doubles: tuple[int, ...] = (2, 4),
    classes: Count = 10,
    input: Shape = (3, 32, 32),
) -> SearchSpace:
    """A chain: one choice of an operation for each layer, nothing else

    Args:
        channels: of the first layers.
        layers: in all.
        operations: primitives that take any number of channels in and out, at strides 1 and 2; or the name
            of a set of them, as `nas list operations` shows.
        doubles: the layers, counted from 0, that halve height and width and double the channels.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
    """
    kinds = named(operations)
    decision = Decision("layers", kinds, rows=layers, keep=layers)
    b = Builder(input)
    x = b("stem", "conv_bn_3x3", "input", out=channels)
    for layer in range(layers):
        stride = 2 if layer in doubles else 1
        channels *= stride
        x = b(f"layers.{layer}", Hole("layers", layer), x, out=channels, stride=stride)
    x = b("last", "bn_relu", x)
    x = b("pool", "global_avg_pool", x)
    b("classifier", "linear", x, out=classes)
    known = {f"all-{op}": "|" + "|".join(f"{op}~{layer}" for layer in range(layers)) + "|" for op in kinds}
    return SearchSpace((decision,), b.graph(), known=known)
