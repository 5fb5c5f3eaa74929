"""The documents name only paths, modules, links and commands that exist."""

import ast
import functools
import importlib
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from benchmarks.__main__ import BENCHMARKS, WITH_OPTIONS
from filters.dedup.containment import Containment
from filters.dedup.minhash import MinHash
from filters.dedup.settings import Deduplication
from manifests.recipe import Recipe, Shards, Tokenizer, Trainer
from manifests.sizes import PRESETS
from manifests.source import Columns, Limits, Source
from pipeline.rules import write_markdown

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "samples/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("filters", "manifests", "pipeline", "trainer", "benchmarks", "samples", "tests", "recipes", "docs", ".ci")
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*")
MODULE = re.compile(r"(?<![\w./-])(?:filters|manifests|pipeline|trainer|benchmarks)(?:\.\w+)+")
COMMAND = re.compile(r"python (?:-m (?:pipeline|manifests|trainer|benchmarks)|samples/\w+\.py)\b[^`\n]*")
LINK = re.compile(r"\]\(([^)#:]*)(#[^)]*)?\)")
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def code_of(text: str) -> Iterator[str]:
    """Yield the code blocks and the inline code of a document. Lines that end in a backslash are joined."""
    for block in FENCE.findall(text):
        yield block.replace("\\\n", " ")
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def test_the_page_of_filters_is_what_the_command_prints() -> None:
    assert (ROOT / "docs/filters.md").read_text("utf-8") == write_markdown(), "python -m pipeline filters --markdown"


@every_document
def test_paths_exist(document: Path) -> None:
    named = {path for code in code_of(document.read_text("utf-8")) for path in PATH.findall(code)}
    assert sorted(path for path in named if not any(ROOT.glob(path.rstrip("/.")))) == []


@every_document
def test_modules_and_their_names_exist(document: Path) -> None:
    named = {name for code in code_of(document.read_text("utf-8")) for name in MODULE.findall(code)}
    assert sorted(name for name in named if not is_defined(name)) == []


@every_document
def test_links_and_their_headings_exist(document: Path) -> None:
    missing = []
    for target, heading in LINK.findall(document.read_text("utf-8")):
        path = document.parent / target if target else document
        if not path.exists() or (heading and heading[1:] not in headings_of(path)):
            missing.append(f"{target}{heading}")
    assert missing == []


@every_document
def test_commands_and_their_options_exist(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = []
    for command in itertools.chain.from_iterable(map(COMMAND.findall, code_of(document.read_text("utf-8")))):
        words = words_of(command)
        if words[1] != "-m":
            continue  # The command runs a script, which test_paths_exist checks.
        while words[2:] and words[2] in ("pipeline", "manifests", "trainer"):
            own, _, rest = split_at(words[3:], "--")
            unknown += [f"{option}: {command}" for option in unknown_options(words[2], own, capsys)]
            words = [*words[:3], *rest] if own[:1] == ["launch"] else []
        if words[2:3] == ["benchmarks"]:
            unknown += [command] * bool({*words[3:4]} - {*BENCHMARKS, *WITH_OPTIONS, "all", "NAME"})
    assert unknown == []


@every_document
def test_models_that_commands_train_exist(document: Path) -> None:
    commands = itertools.chain.from_iterable(map(COMMAND.findall, code_of(document.read_text("utf-8"))))
    named = {found[1] for command in commands if (found := re.search(r" train .*--model ([\w=,]+)", command))}
    assert sorted(name for name in named if name not in PRESETS and not name.startswith("dim=")) == []


def test_the_stages_of_a_run_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("pipeline", ("run",), capsys) or ""
    choices = re.search(r"--stage\s+\{([^}]*)\}", text)
    assert choices is not None
    described = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/build.md").read_text("utf-8"), re.MULTILINE))
    assert sorted(set(re.sub(r"\s", "", choices[1]).split(",")) - described) == []


BLOCKS: dict[str, type[BaseModel]] = {
    "Recipe": Recipe, "Source": Source, "Limits": Limits, "Deduplication": Deduplication, "MinHash": MinHash,
    "Containment": Containment, "Tokenizer": Tokenizer, "Shards": Shards, "Trainer": Trainer, "Columns": Columns,
}  # fmt: skip


@pytest.mark.parametrize("heading", BLOCKS)
def test_the_page_of_the_recipe_has_every_key_with_its_default(heading: str) -> None:
    page = (ROOT / "docs/recipe.md").read_text("utf-8")
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = {name: default for names, default in re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", section, re.MULTILINE)
            for name in re.findall(r"`(\w+)`", names)}  # fmt: skip
    fields = BLOCKS[heading].model_fields
    assert rows.keys() == fields.keys()
    for name, default in rows.items():
        field = fields[name]
        if default in ("-", "(block)"):
            assert field.is_required() if default == "-" else isinstance(field.default, BaseModel), name
        else:
            assert yaml.safe_load(default.strip("`")) == field.default, name


def words_of(command: str) -> list[str]:
    """Return the words of a command without comments and without signs of a synopsis such as brackets and …."""
    return shlex.split(re.sub(r"[\[\]…]", " ", command.split(" #")[0].split("→")[0].replace("'", "")))


def split_at(words: list[str], separator: str) -> tuple[list[str], list[str], list[str]]:
    """Return the words before a separator, the separator, and the words after it."""
    place = words.index(separator) if separator in words else len(words)
    return words[:place], words[place : place + 1], words[place + 1 :]


def unknown_options(package: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the subcommand if it is unknown, else the options that are not in its help text."""
    commands = list(itertools.takewhile(lambda word: re.fullmatch(r"[a-z_0-9]+", word), words))[:2]
    if package != "pipeline" or commands[:1] != ["download"]:
        commands = commands[:1]
    text = help_of(package, tuple(commands), capsys)
    if text is None:
        return commands
    options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    return sorted(option for option in options if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text))


TEXTS: dict[tuple[str, tuple[str, ...]], str | None] = {}  # help texts by package and subcommands


def help_of(package: str, commands: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str | None:
    """Return the help text of a subcommand, or None if there is no such subcommand."""
    if (package, commands) not in TEXTS:
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"{package}.__main__").main([*commands, "--help"])
        TEXTS[package, commands] = capsys.readouterr().out if ended.value.code == 0 else None
    return TEXTS[package, commands]


def is_defined(name: str) -> bool:
    """Return True if a dotted name is a package, a module, or a name in a module, perhaps with an attribute."""
    parts = name.split(".")
    for number in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:number])
        if path.with_suffix(".py").is_file():
            return number == len(parts) or parts[number] in definitions_of(path.with_suffix(".py"))
        if path.is_dir():
            return number == len(parts)
    return False


@functools.cache
def definitions_of(path: Path) -> set[str]:
    """Return the names of the functions, classes and constants that a module defines."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def headings_of(path: Path) -> set[str]:
    """Return the anchors that GitHub generates for the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
