"""What the documents promise: their links lead somewhere, their commands exist, their code compiles."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

import enas
from tests.documents import PACKAGES, ROOT, code_blocks, without_code

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", *(f"{package}/**/*.md" for package in PACKAGES))
    for path in ROOT.glob(pattern)
)
SCRIPTS = sorted((ROOT / "examples").rglob("*.sh"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, flags=re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z]+) *\?=", MAKEFILE, flags=re.MULTILINE)) | set(
    re.findall(r"\$\(([A-Z]+)\)", MAKEFILE)
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
# Where a command may begin: `enas`, `make`, or one started by torchrun or by an example.
_COMMAND = re.compile(
    r"^(?:.*-m enas -- |enas |python examples/custom_operation\.py )(?P<enas>[a-z].*)|^make (?P<make>.*)"
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


documents = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


def blocks(path: Path, *languages: str) -> list[str]:
    """The text of a document's code blocks in one of these languages."""
    return [text for language, text in code_blocks(path.read_text(encoding="utf-8")) if language in languages]


def anchors(path: Path) -> set[str]:
    """The names by which a link can lead to a heading, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", without_code(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The program, `enas` or `make`, and the words of every command in a text; a comment or a pipe ends one."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&& |\|\|? |; ", re.sub(r"(^|\s)# .*", "", line)):
            if found := _COMMAND.match(part.strip().removeprefix("exec ")):
                yield str(found.lastgroup), shlex.split(found[str(found.lastgroup)], comments=True)


def in_the_open(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands of a document: lines of its code blocks, and what stands in the text as `enas …` or `make …`."""
    for block in blocks(path, "", "bash", "sh"):
        yield from commands(block)
    for quoted in re.findall(r"`((?:enas|make) [^`]+)`", without_code(path)):
        # `a \| b` in a table names several commands; `…` and capitals stand for anything.
        for alternative in alternatives(" ".join(quoted.split())):
            yield from commands(alternative)


def alternatives(quoted: str) -> list[str]:
    """`enas data list \\| info` is `enas data list` and `enas data info`."""
    first, *others = re.split(r" \\\| ", quoted)
    return [first, *(f"{first.rpartition(' ')[0]} {other}" for other in others)]


@cache
def known_command(words: tuple[str, ...]) -> tuple[click.Command, int]:
    """The command that words begin with, and how many of them name it."""
    command: click.Command = enas.build_group()
    context = click.Context(command)
    for count, word in enumerate(words):
        if not isinstance(command, click.Group):
            return command, count
        found = command.get_command(context, word)
        assert found is not None, f"enas {' '.join(words[: count + 1])}: no such command"
        command = found
    return command, len(words)


def check_enas(words: list[str]) -> None:
    """Fail where a command or one of its options does not exist."""
    leading = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    command, _ = known_command(tuple(words[: min(leading, 2)]))
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help", "-h"}
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-\d.*", word):
            assert word.partition("=")[0] in known, f"enas {shlex.join(words)}: no option {word}"


def check_make(words: list[str]) -> None:
    """Fail where a target or a variable does not exist."""
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert name in (VARIABLES if is_variable else TARGETS), f"make {shlex.join(words)}: no {name}"


def test_the_commands_of_a_document_are_found() -> None:
    found = list(in_the_open(ROOT / "README.md"))
    assert ("make", ["search", "retrain", "export"]) in found
    assert ("enas", ["data", "import", "photos/", "--name", "flowers", "--size", "64"]) in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("serch", "no such command"),
        ("data improt", "no such command"),
        ("search --sede 3", "no option --sede"),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(words: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_enas(words.split())


def test_a_target_or_variable_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(AssertionError, match="no serch"):
        check_make(["serch"])
    with pytest.raises(AssertionError, match="no SEDE"):
        check_make(["search", "SEDE=1"])


@documents
def test_relative_links_lead_somewhere(path: Path) -> None:
    for link in _LINK.findall(without_code(path)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{name_of(path)}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name_of(path)}: {link}"


@pytest.mark.parametrize("path", [*DOCUMENTS, *SCRIPTS], ids=name_of)
def test_every_command_exists_with_its_options(path: Path) -> None:
    found = commands(path.read_text(encoding="utf-8")) if path in SCRIPTS else in_the_open(path)
    for program, words in found:
        {"enas": check_enas, "make": check_make}[program](words)


def test_every_command_and_document_can_be_found_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    linked = set(_LINK.findall(readme))
    assert pages | {"CONTRIBUTING.md", "CHANGELOG.md", "examples/"} <= linked
    table = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    missing = [
        name for name in enas.build_group().list_commands(click.Context(enas.build_group())) if name not in table
    ]
    assert not missing


def test_the_readme_stays_a_page() -> None:
    """Details belong into `docs/`, which it links."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8")) < 8_000


@documents
def test_python_in_documents_compiles(path: Path) -> None:
    for block in blocks(path, "python"):
        compile(block, name_of(path), "exec")


def test_json_of_the_contracts_is_a_spec(tmp_path: Path) -> None:
    from searcher.arch.spec import read_spec

    (block,) = blocks(ROOT / "docs" / "architecture.md", "json")
    (tmp_path / "spec.json").write_text(block, encoding="utf-8")
    assert read_spec(tmp_path / "spec.json").space == "stages"


def test_the_container_files_copy_every_package() -> None:
    for path in (ROOT / "runtime" / "examples").glob("Dockerfile*"):
        copied = set(re.findall(r"^COPY (\w+) \1/$", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
        assert copied == set(PACKAGES), name_of(path)
