"""Neural architecture search: search, train and export networks.

    import nas
    space = nas.space("darts", channels=16, cells=8)
    result = nas.search(space=space, strategy="darts", data="cifar10", budget="50epochs")
    network = nas.build("darts:DARTS_V2", channels=36, cells=20, classes=10)
    nas.cost(network, input=(3, 32, 32))
    nas.export(network, formats=["onnx"], out="export")

Importing this is cheap: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.api import build, export, search
    from nas.counting import cost
    from nas.search_space import space

_HOME = {
    "build": "nas.api",
    "cost": "nas.counting",
    "export": "nas.api",
    "search": "nas.api",
    "space": "nas.search_space",
}
__all__ = ["build", "cost", "export", "search", "space"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nas' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
