"""Budgets: what they say, and what of them a strategy can count."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import mistakes

from nas.budget import Budget
from nas.config import resolve_search


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("50epochs", Budget(epochs=50)),
        ("1epoch", Budget(epochs=1)),
        (" 50 epochs ", Budget(epochs=50)),
        ("200trials", Budget(trials=200)),
        ("3h", Budget(hours=3)),
        ("90min", Budget(hours=1.5)),
        ("0.5h", Budget(hours=0.5)),
        ("8gpuh", Budget(device_hours=8)),
        ("50epochs,3h", Budget(epochs=50, hours=3)),
        ("200trials, 3h, 2h", Budget(trials=200, hours=2)),
        ("50epochs,20epochs", Budget(epochs=20)),
    ],
)
def test_budgets(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    "text",
    [
        "",
        "50",
        "epochs",
        "0epochs",
        "-3epochs",
        "1.5trials",
        "3parsecs",
        "3h,",
        "50epochs;3h",
        "1e3trials",
        "nanh",
        "50epochs 3h",
        "None",
        "infh",
    ],
)
def test_budgets_refused(text: str) -> None:
    with pytest.raises(ValueError, match="budget"):
        Budget.parse(text)
    if text:
        assert any("budget" in line for line in mistakes({"budget": text}))


def test_a_budget_counts_what_the_strategy_counts() -> None:
    assert any("trials" in line for line in mistakes({"strategy": "random", "budget": "3epochs"}))
    assert any("epochs" in line for line in mistakes({"strategy": "darts", "budget": "3trials"}))
    assert any("epochs" in line for line in mistakes({"strategy": "darts", "budget": "2epochs,3trials"}))
    assert resolve_search([{"strategy": "random", "budget": "3trials,1h"}])["budget"] == "3trials,1h"


OWN = '''
from nas.strategies import AskTell, OneShot, Trial

class Same(AskTell):
    """The same again"""

    def __init__(self, speed: int = 3) -> None:
        super().__init__()

    def ask(self, number):
        return Trial(number, self.task.space.parse(next(iter(self.task.space.known))))

class Still(OneShot):
    """Nothing moves"""

    def __init__(self, epochs: int = 3) -> None:
        super().__init__()
        self.epochs = epochs
'''


def test_strategies_of_ones_own_are_checked_like_ours(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    own = f"{tmp_path}/own.py"
    resolved = resolve_search([{"strategy": {"name": f"{own}:Same", "speed": 2}}])
    assert resolved["strategy"] == {"name": f"{own}:Same", "speed": 2}
    assert resolved["budget"].endswith("trials")
    assert resolve_search([resolved]) == resolved
    assert resolve_search([{"strategy": f"{own}:Still"}])["budget"].endswith("epochs")
    assert any(
        "did you mean 'speed'" in line for line in mistakes({"strategy": {"name": f"{own}:Same", "sped": 2}})
    )
    assert any("did you mean 'Same'" in line for line in mistakes({"strategy": f"{own}:Sam"}))
    assert any("no Python file" in line for line in mistakes({"strategy": f"{tmp_path}/none.py:Same"}))
