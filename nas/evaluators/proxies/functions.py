"""Names of the functions of PyTorch that proxies treat apart, however a network calls them.

A module, ``nn.functional`` and a tensor's method end in the same functions, which `TorchFunctionMode` sees.
"""

from __future__ import annotations

#: Non-linearities between layers, by themselves and in place. Gates (sigmoid, softmax) are none of them.
ACTIVATIONS = frozenset(
    name + suffix
    for name in (
        *("relu", "relu6", "hardtanh", "threshold", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu"),
        *("gelu", "silu", "mish", "hardswish", "softplus", "tanh"),
    )
    for suffix in ("", "_")
)
NORMALISATIONS = frozenset(
    ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm")
)
