"""Installs a wheel for every CPython that it fits and that is on this machine, and tries it there.

    python tests/wheel/everywhere.py dist/omni-…-cp311-abi3-….whl

In a fresh environment each: what it needs by hash, the wheel, the command line (`acceptance.py`) and the assistant in a
program (`test_agent.py`). In one of them also the types and the wheel itself.
"""

import glob
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLDEST = (3, 11)
PLACES = (
    "/usr/bin/python3.*",
    "/usr/local/bin/python3.*",
    "~/.pyenv/versions/*/bin/python3",
    "~/.local/share/uv/python/*/bin/python3",
)
ASK = (
    "import platform, sys, sysconfig; print(sys.implementation.name, platform.python_version(), "
    "sysconfig.get_config_var('Py_GIL_DISABLED') or 0, sys.base_prefix)"
)


def pythons() -> dict[str, str]:
    """Find interpreters: one of each minor version and place that the wheel fits."""
    found: dict[str, str] = {}
    for place in PLACES:
        for file in sorted(glob.glob(os.path.expanduser(place))):
            asked = subprocess.run([file, "-I", "-c", ASK], capture_output=True, text=True, check=False)
            if asked.returncode != 0:
                continue
            name, version, free_threaded, prefix = asked.stdout.strip().split(" ", 3)
            minor = tuple(int(part) for part in version.split(".")[:2])
            if name == "cpython" and minor >= OLDEST and free_threaded == "0":
                found.setdefault(f"{version} in {prefix}", file)
    return found


def run(*command: str | Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    subprocess.run([str(part) for part in command], check=True, env=environment, cwd=HERE)


def install(python: str, folder: Path, wheel: Path) -> Path:
    """Make an environment, and return where its programs are."""
    run(python, "-m", "venv", folder)
    programs = folder / "bin"
    pip = (programs / "python", "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "install", "--require-hashes", "--no-deps", "-r", HERE / "requirements.txt")
    run(*pip, "install", "--no-deps", "--no-index", wheel)
    run(*pip, "check")
    return programs


def try_types(programs: Path, wheel: Path) -> None:
    """The types say what there is, the wheel says what it needs."""
    run(programs / "mypy", "--strict", "--config-file=", HERE / "typed.py")
    # What tools see of a call is described where they see it.
    run(programs / "stubtest", "omni._omni", "--ignore-missing-stub")
    run(programs / "twine", "check", "--strict", wheel)
    run(programs / "auditwheel", "show", wheel)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        print(__doc__)
        return 2
    wheel = Path(arguments[0]).resolve()
    found = pythons()
    if not found:
        print("there is no CPython 3.11 or newer here")
        return 1
    failed = []
    for number, (name, python) in enumerate(found.items()):
        print(f"\n== {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="omni-wheel-") as folder:
            try:
                programs = install(python, Path(folder), wheel)
                if number == 0:
                    try_types(programs, wheel)
                run(programs / "python", HERE / "acceptance.py", programs / "omni")
                run(programs / "python", "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", HERE, HERE)
            except subprocess.CalledProcessError as error:
                print(f"failed: {error}", flush=True)
                failed.append(name)
    print(f"\n{len(found) - len(failed)} of {len(found)} passed: {', '.join(found)}")
    return min(len(failed), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
