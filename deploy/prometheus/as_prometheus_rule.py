"""Write alerts.yaml as a PrometheusRule for Kubernetes; `make rules` runs it.

The groups are copied line by line, comments included, so that both read the same.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "base" / "prometheus-rule.yaml"
HEAD = """\
# Made from deploy/prometheus/alerts.yaml by `make rules`; change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: torghut
spec:
"""


def prometheus_rule() -> str:
    """The text of the manifest."""
    _, groups = (HERE / "alerts.yaml").read_text(encoding="utf-8").split("\ngroups:\n")
    lines = [f"  {line}" if line else "" for line in ("groups:\n" + groups).splitlines()]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(prometheus_rule(), encoding="utf-8")
