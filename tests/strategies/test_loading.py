"""Loading strategies: by entry point, by module:Class, and one clear error for the rest."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from torghut.domain.errors import ConfigError
from torghut.strategies.loading import GROUP, load_strategy
from torghut.strategies.ma_crossover import MovingAverageCrossover

MODULE = """
class Good:
    bars_wanted = 3
    def __init__(self, *, size=1):
        self.size = size
    def decide(self, facts):
        return []

class Mute:
    bars_wanted = 3

class Endless(Good):
    bars_wanted = "many"

class Crashing(Good):
    def __init__(self):
        raise RuntimeError("no disk")

number = 7

def made(size):
    return Good(size=size)

def nothing():
    return None
"""


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with two entry points, one of them broken."""
    (tmp_path / "plugged_in.py").write_text(MODULE)
    (tmp_path / "broken_plug_in.py").write_text("import no_such_module")
    info = tmp_path / "plugged_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\nplugged = plugged_in:Good\nbroken = broken_plug_in:Good\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("plugged_in", None)


def refused(reference: str, **params: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_strategy(reference, params)
    assert caught.value.exit_code == 78 and "\n" not in str(caught.value)
    assert reference in caught.value.setting
    return str(caught.value)


def test_by_module_and_class() -> None:
    strategy = load_strategy(
        "torghut.strategies.ma_crossover:MovingAverageCrossover", {"fast": 3, "slow": 9}
    )
    assert isinstance(strategy, MovingAverageCrossover) and strategy.bars_wanted == 10


@pytest.mark.usefixtures("plug_in")
def test_by_entry_point_and_by_a_function() -> None:
    assert load_strategy("plugged", {}).bars_wanted == 3
    assert load_strategy("plugged_in:made", {"size": 4}).bars_wanted == 3


def test_the_entry_points_of_the_project_can_be_loaded() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    points = project["project"]["entry-points"][GROUP]
    assert set(points) == {"ma-crossover", "monthly-rebalance"}
    for reference in points.values():
        assert load_strategy(reference, {}).bars_wanted > 0


@pytest.mark.usefixtures("plug_in")
@pytest.mark.parametrize(
    ("reference", "params", "parts"),
    [
        ("plugd", {}, ["is not a known name", "broken,", "plugged", "module:Class"]),
        ("", {}, ["is not a known name"]),
        ("broken", {}, ["broken_plug_in:Good", "no_such_module", "reinstall"]),
        (":Class", {}, ["is incomplete"]),
        ("plugged_in:", {}, ["is incomplete"]),
        ("no.such.place:Class", {}, ["'no.such.place' cannot be imported"]),
        ("broken_plug_in:Good", {}, ["cannot be imported", "no_such_module"]),
        ("plugged_in:Bad", {}, ["has no 'Bad'"]),
        ("plugged_in:number", {}, ["is not a class"]),
        ("plugged_in:Mute", {}, ["no method decide(facts)"]),
        ("plugged_in:nothing", {}, ["no method decide(facts)"]),
        ("plugged_in:Endless", {}, ["bars_wanted 'many'"]),
        ("plugged_in:Crashing", {}, ["RuntimeError: no disk"]),
        ("plugged_in:Good", {"speed": 1}, ["params", "speed"]),
        (
            "torghut.strategies.ma_crossover:MovingAverageCrossover",
            {"fast": 9, "slow": 3},
            ["params", "below slow", "correct the parameters"],
        ),
    ],
)
def test_errors_say_what_where_and_how_to_mend(
    reference: str, params: dict[str, object], parts: list[str]
) -> None:
    message = refused(reference, **params)
    assert all(part in message for part in parts), message
