"""Run set-up, demo and tests on other interpreters: `python .ci/matrix.py [--newest] [COMMAND…]`.

Each interpreter works in a clone of its own below build/matrix, which is removed when all went well. Commands are
targets of the Makefile, by default `demo` and `test`. The last line says what passed and what failed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)


def main(arguments: list[str]) -> int:
    """Run the commands on each interpreter; return 0 if all passed and 1 otherwise."""
    parser = argparse.ArgumentParser(description="Set-up, demo and tests on every interpreter that is found here.")
    parser.add_argument("--newest", action="store_true", help="the newest alone, and only if it is newer than this one")
    parser.add_argument("commands", nargs="*", default=["demo", "test"], help="targets of the Makefile")
    options = parser.parse_args(arguments)
    found = find_interpreters()
    if options.newest:
        found = [max(found)] if found and max(found)[0] > sys.version_info[:2] else []
    if not found:
        print("no newer interpreter is found here" if options.newest else "no Python from 3.11 on is found here")
        return 0 if options.newest else 1
    results = {f"{path} ({major}.{minor})": run_commands(path, options.commands) for (major, minor), path in found}
    for name, failed in results.items():
        print(f"{name}: {f'make {failed} failed' if failed else ' and '.join(options.commands) + ' passed'}")
    return int(any(results.values()))


def find_interpreters() -> list[tuple[tuple[int, int], Path]]:
    """Return (version, path) of one interpreter per minor version from 3.11 on, oldest version first.

    The search covers PATH, /usr/bin and pyenv's folder. Debian's own interpreter of a version is listed beside the
    other.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [*pyenv.glob("*/bin"), *map(Path, os.environ.get("PATH", "").split(os.pathsep)), Path("/usr/bin")]
    kept: dict[tuple[tuple[int, int], bool], Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("python3*")):
            if re.fullmatch(r"python3(\.\d+)?", path.name) and (version := read_version(path)) and version >= OLDEST:
                kept.setdefault((version, path.resolve().is_relative_to("/usr/bin")), path)
    return sorted((version, path) for (version, _), path in kept.items())


def read_version(python: Path) -> tuple[int, int] | None:
    """Return an interpreter's major and minor version, or None if it does not run."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        said = subprocess.run([str(python), "-c", code], capture_output=True, text=True, encoding="utf-8", check=False)
    except OSError:
        return None
    parts = said.stdout.split()
    return (int(parts[0]), int(parts[1])) if said.returncode == 0 and len(parts) == 2 else None


def run_commands(python: Path, commands: list[str]) -> str:
    """Run targets of the Makefile in a fresh clone; return the name of the first that fails, or an empty string."""
    clone = ROOT / "build" / "matrix" / "-".join(python.parts[-3:])
    shutil.rmtree(clone, ignore_errors=True)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    for command in commands:
        print(f"== {python}: make {command}", flush=True)
        if subprocess.run(["make", f"PYTHON={python}", command], cwd=clone, check=False).returncode:
            return command
    shutil.rmtree(clone)
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
