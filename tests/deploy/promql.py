"""What dashboards and rules ask Prometheus for, and what is there to be asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from prometheus_client.metrics import MetricWrapperBase

from tests.deploy.tools import DEPLOY
from torghut import telemetry

ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

NAME = re.compile(r"\b(?:account:|job:)?torghut_\w+(?::\w+)?|\bprocess_\w+")
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
"""Of prometheus_client's own, about the process."""
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def declared() -> dict[str, MetricWrapperBase]:
    """Every metric of ours by the name it is declared under in torghut/telemetry.py."""
    found = [value for value in vars(telemetry).values() if isinstance(value, MetricWrapperBase)]
    return {full_name(metric): metric for metric in found}


def full_name(metric: MetricWrapperBase) -> str:
    """As it is written in the code: a counter's name ends in _total."""
    return metric._name + ("_total" if metric._type == "counter" else "")


def series() -> set[str]:
    """Every name that a scrape of ours has, histograms' parts included."""
    return {
        metric._name + suffix for metric in declared().values() for suffix in SUFFIXES[metric._type]
    }


def rules() -> list[Mapping[str, Any]]:
    """Every rule, recording and alerting, in the order of the file."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> set[str]:
    """Names that recording rules make."""
    return {rule["record"] for rule in rules() if "record" in rule}


def panels(board: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Panels of a dashboard that show something."""
    for panel in board["panels"]:
        if panel["type"] != "row":
            yield panel


def dashboards() -> dict[str, Any]:
    """Dashboards by file name."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS}


def expressions() -> list[tuple[str, str]]:
    """`(where, PromQL)` of every panel, Grafana's variables replaced by values."""
    return [
        (f"{name}: {panel['title']}", filled(target["expr"]))
        for name, board in dashboards().items()
        for panel in panels(board)
        for target in panel["targets"]
    ]


def filled(expression: str) -> str:
    """An expression as Grafana would send it."""
    return expression.replace("$__rate_interval", "1m").replace("$account", ".*")


def names(expression: str) -> set[str]:
    """The metrics that an expression names."""
    return set(NAME.findall(expression))
