"""Rules and dashboards: valid, about metrics that exist, and with a way out for whoever is called.

promtool is of the Debian package prometheus.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from tests.deploy import promql
from tests.deploy.tools import DEPLOY, ROOT, program, run
from torghut.cli import app

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
METRICS_PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def entries() -> dict[str, str]:
    """The runbook's entries about alerts: heading → text."""
    parts = re.split(r"^### (Torghut\w+)\n", RUNBOOK, flags=re.M)
    texts = [re.split(r"^## ", part, flags=re.M)[0] for part in parts[2::2]]
    return dict(zip(parts[1::2], texts, strict=True))


def alerts() -> list[dict[str, object]]:
    return [dict(rule) for rule in promql.rules() if "alert" in rule]


# ---------------------------------------------------------------------- rules


def test_promtool_accepts_the_rules() -> None:
    answer = run(program("promtool"), "check", "rules", promql.ALERTS)
    assert f"{len(promql.rules())} rules found" in answer


def test_the_rules_fire_on_a_doubt_and_on_a_dead_stream(tmp_path: Path) -> None:
    """rules_test.yaml simulates both, and more, each with a control below the threshold."""
    shutil.copy(promql.ALERTS, tmp_path)
    cases = shutil.copy(Path(__file__).parent / "rules_test.yaml", tmp_path)
    text = Path(cases).read_text(encoding="utf-8")
    assert "TorghutDecisionInDoubt" in text and "TorghutStreamDead" in text
    run(program("promtool"), "test", "rules", cases)


def test_control_the_cases_see_rules_that_never_fire(tmp_path: Path) -> None:
    rules = yaml.safe_load(promql.ALERTS.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            if rule.get("alert") in ("TorghutDecisionInDoubt", "TorghutStreamDead"):
                rule["expr"] = f"({rule['expr']}) > 1e9"
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    cases = yaml.safe_load((Path(__file__).parent / "rules_test.yaml").read_text())
    cases["tests"] = [t for t in cases["tests"] if "fires" in t["name"]]
    assert len(cases["tests"]) == 2
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases), encoding="utf-8")
    with pytest.raises(AssertionError) as failure:
        run(program("promtool"), "test", "rules", tmp_path / "cases.yaml")
    for alert in ("TorghutDecisionInDoubt", "TorghutStreamDead"):
        assert f"alertname: {alert}" in str(failure.value)


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    """The file that compose mounts, with its paths moved here."""
    token = tmp_path / "token"
    token.write_text("t")
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    moved = text.replace("/etc/prometheus/alerts.yaml", str(promql.ALERTS))
    (tmp_path / "prometheus.yml").write_text(
        moved.replace("/run/secrets/metrics_token", str(token))
    )
    run(program("promtool"), "check", "config", tmp_path / "prometheus.yml")


# ---------------------------------------------------------------------- alerts and the runbook


def test_every_alert_has_its_entry_and_every_entry_its_alert() -> None:
    named = {str(rule["alert"]) for rule in alerts()}
    assert named == set(entries())
    for rule in alerts():
        annotations, labels = rule["annotations"], rule["labels"]
        assert isinstance(annotations, dict) and isinstance(labels, dict)
        assert annotations["runbook"] == f"docs/runbook.md#{str(rule['alert']).lower()}"
        assert labels["severity"] in ("page", "ticket")
        assert annotations["summary"]


@pytest.mark.parametrize("alert", sorted(entries()))
def test_an_entry_says_what_to_do(alert: str) -> None:
    """Symptom, meaning, first command, resolution; the commands are there."""
    text = entries()[alert]
    parts = re.findall(r"^\*\*(\w[\w ]*)\.\*\*", text, flags=re.M)
    assert parts == ["Symptom", "Meaning", "First command", "Resolution"], alert
    first = text.split("**First command.**")[1].split("**Resolution.**")[0]
    assert re.search(r"```sh\n.+\n```", first, flags=re.S), alert


def test_every_command_in_the_runbook_exists() -> None:
    """Each `torghut …` in it: its command, its subcommand, its options."""
    found = re.findall(r"(?:^|`)torghut ([a-z][^`\n#]*)", RUNBOOK, flags=re.M)
    assert len(found) > 20
    wrong = [line for line in found if not known(line.split())]
    assert wrong == []
    assert not known(["halt", "--no-such-option"]) and not known(["no-such-command"])


def known(words: list[str]) -> bool:
    """True if the command line has this command with these options."""
    command: Any = get_command(app)
    if words[0] not in command.commands:
        return False
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    options = {option for param in command.params for option in param.opts}
    return all(word.split("=")[0] in options for word in words if word.startswith("--"))


# ---------------------------------------------------------------------- dashboards


def test_dashboards_are_whole() -> None:
    """Ids are unique, panels overlap nowhere, each asks the chosen data source."""
    boards = promql.dashboards()
    assert len(boards) == 3
    assert len({board["uid"] for board in boards.values()}) == 3
    for name, board in boards.items():
        assert f"{board['uid']}.json" == name
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids)), name
        cells = [
            (x, y)
            for panel in board["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24, name
        for panel in promql.panels(board):
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert panel["targets"], panel["title"]


def test_promtool_parses_every_expression(tmp_path: Path) -> None:
    """As rules: promtool parses those. A control breaks one."""
    found = promql.expressions()
    assert len(found) > 50
    file = tmp_path / "panels.yaml"
    file.write_text(_as_rules([expr for _, expr in found]), encoding="utf-8")
    run(program("promtool"), "check", "rules", file)
    file.write_text(_as_rules([found[0][1] + ")"]), encoding="utf-8")
    with pytest.raises(AssertionError, match="could not parse"):
        run(program("promtool"), "check", "rules", file)


def _as_rules(expressions: list[str]) -> str:
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions)]
    return yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]})


def test_every_metric_asked_for_exists() -> None:
    known_names = promql.series() | promql.recorded() | promql.PROCESS
    asked = {where: promql.names(expr) for where, expr in promql.expressions()}
    for rule in promql.rules():
        asked[f"rule {rule.get('record') or rule['alert']}"] = promql.names(rule["expr"])
    assert all(asked.values()), [where for where, names in asked.items() if not names]
    missing = {where: names - known_names for where, names in asked.items() if names - known_names}
    assert missing == {}
    assert promql.names("rate(torghut_no_such_total[1m])") - known_names


def test_every_metric_is_in_the_table_with_its_labels_and_unit() -> None:
    """docs/metrics.md and torghut/telemetry.py say the same."""
    rows: dict[str, list[str]] = {}
    for line in METRICS_PAGE.splitlines():
        if line.startswith("| `torghut_"):
            name, *rest = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name.strip("`")] = rest
    metrics = promql.declared()
    assert rows.keys() == metrics.keys()
    for name, metric in metrics.items():
        kind, labels, unit, _meaning = rows[name]
        assert kind == metric._type, name
        assert labels.replace("`", "") == ", ".join(metric._labelnames), name
        assert unit, name


def test_labels_are_closed_sets() -> None:
    """Nothing that grows with the decisions is a label."""
    labels = {label for metric in promql.declared().values() for label in metric._labelnames}
    assert labels == {
        *(
            "account",
            "answer",
            "by",
            "change",
            "code",
            "end",
            "fault",
            "intake",
            "kind",
            "loop",
            "method",
        ),
        *(
            "outcome",
            "phase",
            "python",
            "reason",
            "result",
            "route",
            "scope",
            "sink",
            "stage",
            "state",
        ),
        *("status", "strategy", "version", "what"),
    }
