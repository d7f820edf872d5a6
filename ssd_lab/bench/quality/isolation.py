"""What keeps a model's programs away from this machine: bubblewrap (`bwrap`), else a container of docker or podman.

Inside there is no network and nothing of the user's: a read-only system, and one folder to write in.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

CONTAINERS = ("docker", "podman")
IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
NOBODY = 65534
ENVIRONMENT = {"PYTHONHASHSEED": "0", "HOME": "/tmp", "TMPDIR": "/tmp"}
START_S = 60.0  # for a Python that does nothing
END_S = 10.0  # for a container that is removed

_FLAGS = ("-P", "-s", "-S", "-B")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")
_SPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
_INSTALL = (
    "Install bubblewrap (`apt install bubblewrap`), or docker or podman with the image "
    f"(`docker pull {IMAGE}`). GSM8K needs neither and can be scored alone; on a machine that may be harmed "
    "--unguarded (in Python: Limits(unguarded='run')) runs the programs unprotected"
)


@dataclass(frozen=True)
class Isolation:
    """How a script is started.

    name: of the program that keeps it in; empty if nothing does. environment: of the command (None: ours). user: whom
    the script is run as (None: as us), and the owner of its folder. remove: a command that ends what killing the
    started process leaves.
    """

    name: str
    command: list[str]
    environment: dict[str, str] | None
    user: int | None = None
    remove: list[str] = field(default_factory=list)

    def end(self) -> None:
        """Nothing outside the process group of the command goes on."""
        if self.remove:
            with suppress(OSError, subprocess.SubprocessError):
                subprocess.run(self.remove, capture_output=True, timeout=END_S, check=False)


def unguarded(script: Path, folder: Path) -> Isolation:
    """Nothing but the limits that the script sets for itself."""
    environment = ENVIRONMENT | {"HOME": str(folder), "TMPDIR": str(folder)}
    return Isolation("", [sys.executable, *_FLAGS, str(script)], environment)


def find_isolation(script: Path, folder: Path) -> Isolation | str:
    """The first way that works on this machine to run the script with `folder` as its only place to write; or, in
    words, what is missing.
    """
    reasons = []
    for name, made in (("bwrap", _bwrap), *((name, _container) for name in CONTAINERS)):
        program = shutil.which(name)
        reason = "is not installed" if program is None else _failure(made, program)
        if program is not None and reason is None:
            return made(program, script, folder)
        reasons.append(f"{name} {reason}")
    return f"nothing here keeps them away from this machine ({'; '.join(reasons)}). {_INSTALL}"


def _bwrap(program: str, script: Path, folder: Path) -> Isolation:
    """Namespaces of its own. Who is root here keeps just the right to become nobody: root has no limit of processes."""
    user = None if os.geteuid() else NOBODY
    spaces = ["--unshare-all"] if user is None else [*_SPACES, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    python = Path(os.path.realpath(sys.base_prefix))
    own = [] if python.is_relative_to("/usr") else [python]
    command = [
        program, "--die-with-parent", "--new-session", "--cap-drop", "ALL", *spaces,
        *(word for path in _SYSTEM for word in ("--ro-bind-try", path, path)),
        *(word for path in own for above in path.parents[-2::-1] for word in ("--dir", str(above))),  # for others too
        *(word for path in own for word in ("--ro-bind", str(path), str(path))),
        "--proc", "/proc", "--dev", "/dev", "--bind", str(folder), "/tmp", "--ro-bind", str(script), "/candidate.py",
        "--remount-ro", "/dev", "--remount-ro", "/",
        os.path.realpath(sys.executable), *_FLAGS, "/candidate.py",
    ]  # fmt: skip
    return Isolation("bwrap", command, dict(ENVIRONMENT), user)


def _container(program: str, script: Path, folder: Path) -> Isolation:
    """A container of an image that is there already, removed by its name."""
    name, kind = f"ssd-lab-candidate-{secrets.token_hex(8)}", Path(program).name
    user, group = (os.geteuid(), os.getegid()) if os.geteuid() else (NOBODY, NOBODY)
    command = [
        program, "run", "--rm", "--interactive", "--pull", "never", "--name", name, "--network", "none", "--read-only",
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{user}:{group}",
        *(("--userns", "keep-id") if kind == "podman" and os.geteuid() else ()),
        "--volume", f"{folder}:/tmp", "--volume", f"{script}:/candidate.py:ro",
        *(word for variable in ENVIRONMENT.items() for word in ("--env", "=".join(variable))),
        IMAGE, "python3", *_FLAGS, "/candidate.py",
    ]  # fmt: skip
    return Isolation(kind, command, None, None if os.geteuid() else NOBODY, [program, "rm", "--force", name])


@lru_cache(maxsize=8)
def _failure(made: Callable[[str, Path, Path], Isolation], program: str) -> str | None:
    """Why a Python does not start and write in its folder this way; None if it does. Tried once a process."""
    with tempfile.TemporaryDirectory(prefix="ssd_lab_probe_") as name:
        script = Path(name).resolve() / "probe.py"
        script.write_text("", encoding="utf-8")
        isolation = made(program, script, script.parent)
        try:
            done = subprocess.run(
                isolation.command,
                env=isolation.environment,
                capture_output=True,
                text=True,
                timeout=START_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"does not work here: {error}"
        finally:
            isolation.end()
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return None if done.returncode == 0 else f"does not work here: {said}"
