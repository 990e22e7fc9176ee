# `make help` lists the commands. Needed: Python 3.11 or newer, git, GNU make; nothing else. Tests
# also need the programs of tests/programs.txt, which are installed where apt-get may do so.
#
# Every path in here is relative and every program starts as `.venv/bin/python -m …`, so that the
# directory may have any name: scripts in .venv/bin hold its absolute path in their first line.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test chaos simulate model bench lint fmt pin rules mutate clean set-up programs

PYTHON ?=
ARGS ?=
# two for each core: most of the time a test waits, for a process or for the database
JOBS ?= $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2))
PY := .venv/bin/python
IMPORTS := $(PY) -c 'from importlinter.cli import lint_imports_command as main; main()'

# another environment's settings have no say in this one
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV __PYVENV_LAUNCHER__
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT PIP_REQUIREMENT PIP_NO_BINARY
export PIP_USER := 0
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

help:
	@echo 'make run [ARGS="…"]   set up .venv if needed, then `torghut demo …`: see it trade'
	@echo 'make test             the same set-up, then every check and every test'
	@echo 'make chaos            crashes, failovers and replicas in full size (docs/faults.md)'
	@echo 'make simulate         10,000 seeds of the services in virtual time (docs/faults.md)'
	@echo 'make model            every state of the submission protocol (docs/protocol.md)'
	@echo 'make bench            how fast it is, beside its peers, into docs/benchmarks.md'
	@echo 'make lint             the checks without the tests'
	@echo 'make fmt              format the code'
	@echo 'make pin              resolve the dependencies again, into constraints.txt'
	@echo 'make rules            write the Kubernetes form of deploy/prometheus/alerts.yaml'
	@echo 'make mutate           break the risk and submission core on purpose: do its tests see it?'
	@echo 'make clean            remove .venv, caches and build output; no data'
	@echo
	@echo 'PYTHON=…              the interpreter to make .venv with (default: the first one from'
	@echo '                      3.11 on that is found); JOBS=N: test processes'

run: set-up
	$(PY) -m torghut demo $(ARGS)

test: lint programs
	$(PY) -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal $(ARGS)

# the sample of each is part of `make test`; where figures are taken, one at a time
chaos: set-up programs
	CHAOS=full $(PY) -m pytest -q -s tests/chaos tests/outbox/test_killed.py tests/streams/test_stream_killed.py $(ARGS)
	CRASH_MATRIX=full $(PY) -m pytest -q -n $(JOBS) --maxprocesses 8 tests/crash $(ARGS)
	@$(MAKE) --no-print-directory simulate ARGS=
	@$(MAKE) --no-print-directory model ARGS=

# seeds and replays one after the other, on one core; then the planted bugs, side by side
simulate: set-up
	CHAOS=full $(PY) -m pytest -q -s tests/simulation/test_simulation.py $(ARGS)
	CHAOS=full $(PY) -m pytest -q -n $(JOBS) --maxprocesses 8 tests/simulation $(ARGS) \
	  --ignore tests/simulation/test_simulation.py

model: set-up programs
	MODEL=full $(PY) -m pytest -q -s tests/model $(ARGS)

# a quarter of an hour on a quiet machine; the peers get an environment of their own, build/peers
bench: set-up
	$(PY) -m tests.bench.peers $(ARGS)

lint: set-up
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(IMPORTS)

fmt: set-up
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# uv resolves for every platform at once; the file names packages and hashes, never an index
pin: set-up
	$(PY) -m pip install --quiet uv
	index="$$($(PY) -m pip config get global.index-url 2>/dev/null)" && export UV_DEFAULT_INDEX="$$index"; \
	$(PY) -m uv --quiet pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --generate-hashes --upgrade --no-header --no-emit-index-url --no-emit-find-links \
	  --output-file constraints.txt && \
	for kind in '' -embedded; do $(PY) -m uv --quiet pip compile pyproject.toml \
	  $${kind:+--extra embedded} --constraint constraints.txt --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --output-file "deploy/requirements$$kind.txt" || exit 1; done && \
	$(PY) -m uv --quiet pip compile tests/bench/peers/requirements.in --universal \
	  --python-version 3.11 --generate-hashes --upgrade --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --output-file tests/bench/peers/requirements.txt

rules: set-up
	$(PY) deploy/prometheus/as_prometheus_rule.py

# the figure is in docs/risk.md; about a quarter of an hour, so it is no part of `make test`
mutate: set-up
	$(PY) -m pip install --quiet 'mutmut==3.8.1'
	$(PY) -m mutmut run
	$(PY) -m mutmut export-cicd-stats && cat mutants/mutmut-cicd-stats.json

clean:
	rm -rf .venv mutants build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- the environment
#
# .venv/.ready is written last and says what was installed where. If it is missing, the set-up was
# interrupted: begin again from nothing. If it says something else, the pins changed: install over.
# One set-up at a time: the lock is on the directory itself, and the kernel gives it back whatever
# happens to its holder.

define SET_UP
set -eu
ready=.venv/.ready
wanted="$(cksum constraints.txt pyproject.toml) $(pwd -P)"
is_ready() { [ "$(cat "$ready" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -ISc '' 2>/dev/null; }
fail() { printf 'set-up: %s\n' "$@" >&2; exit 1; }
is_ready && exit 0

if [ "$0" != locked ]; then
  found=
  faults=
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    version="$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" || continue
    if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      faults="$faults; $candidate is $version, too old"
    elif ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      faults="$faults; $candidate ($version) comes without venv: install python$version-venv"
    else
      # of an activated environment the interpreter below it: this one may be about to be replaced
      found="$("$candidate" -c 'import sys; print(sys._base_executable)')"
      break
    fi
  done
  [ -n "$found" ] || fail "no usable Python: 3.11 or newer is needed, with its venv module$faults" \
    'on Debian or Ubuntu: apt install python3 python3-venv; on macOS: brew install python' \
    'or name one: make PYTHON=/path/to/python3.11'
  export SET_UP_PYTHON="$found"
  exec "$found" -c 'import fcntl, os
lock = os.open(".", os.O_RDONLY)
try:
    fcntl.flock(lock, fcntl.LOCK_EX)
except OSError:
    pass  # a file system without locks
os.set_inheritable(lock, True)
os.execvp("sh", ["sh", "-c", os.environ["SET_UP_SCRIPT"], "locked"])'
fi

if [ -z "${HOME:-}" ] || [ ! -w "$HOME" ]; then export PIP_NO_CACHE_DIR=1; fi
if [ ! -e "$ready" ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  echo 'set-up: making .venv and installing what constraints.txt pins (once, about half a minute)'
  # venv refuses a path with a colon because of PATH, which is not used here
  "$SET_UP_PYTHON" -c 'import os, sys, venv
os.pathsep = "\0"
venv.main(sys.argv[1:])' --clear .venv || fail 'cannot make .venv here; see above'
else
  echo 'set-up: the pins changed; bringing .venv up to date'
fi
rm -f "$ready"
.venv/bin/python -m pip install --quiet --no-compile --require-hashes -r constraints.txt \
  || fail 'the installation failed; see above, then try again'
.venv/bin/python -m pip install --quiet --no-compile --no-deps --no-build-isolation -e . \
  || fail 'torghut itself could not be installed; see above'
# pip compiles with one process, this with all; what fails to compile is a template or the like
.venv/bin/python -m compileall -q -j 0 -x '/(tests?|mypy|hypothesis|pip|setuptools)/' .venv/lib \
  >/dev/null 2>&1 || true
printf '%s' "$wanted" >"$ready.new"
mv "$ready.new" "$ready"
endef

set-up: export SET_UP_SCRIPT = $(value SET_UP)
set-up: export PYTHON := $(PYTHON)
set-up:
	@sh -c "$$SET_UP_SCRIPT" set-up

# Where a program cannot be installed, one line says so, and the tests that need it fail with another.
define PROGRAMS
set -u
PATH="$PATH:/usr/sbin:/sbin"
wanted=$(sed '/^#/d' tests/programs.txt | while read -r program package; do
  command -v "$program" >/dev/null 2>&1 || printf '%s ' "$package"
done)
[ -n "$wanted" ] || exit 0
fail() { printf 'set-up: %s; some tests need: %s\n' "$1" "$wanted" >&2; exit 0; }
if [ "$(id -u)" = 0 ]; then as_root=; else as_root='sudo -n'; fi
command -v apt-get >/dev/null 2>&1 || fail 'no apt-get here'
$as_root true 2>/dev/null || fail 'neither root nor sudo without a password'
echo "set-up: installing $wanted"
policy=/usr/sbin/policy-rc.d  # says no to starting any service by the way
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null && $as_root chmod 0755 "$policy"
  trap '$as_root rm -f "$policy"' EXIT
fi
apt() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@"; }
install() { apt install -y --no-install-recommends $wanted >/dev/null 2>&1; }
install || { apt update >/dev/null 2>&1; install; } || fail 'apt-get could not install packages'
endef

programs: export PROGRAMS_SCRIPT = $(value PROGRAMS)
programs:
	@sh -c "$$PROGRAMS_SCRIPT" programs
