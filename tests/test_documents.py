"""The documents against the tree and the program: links, anchors, verbs, flags, exit codes, the table of files."""

import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from edgellm import errors
from edgellm.cli import app
from edgellm.settings import Settings
from tests.file_table import OTHERS, PAGE, table

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "patches" / "README.md", *(ROOT / ".github").rglob("*.md")]
)
KINDS = {"tutorial", "how-to", "reference", "explanation", "developer"}
MAX_README_LINES = 140
FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
CODE_LINE = re.compile(r"^(?: {4,}|\t)(.*)$", re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
COMMAND = re.compile(r"(?:^|[\s\"'$(/])edgellm ((?:[a-z][a-z-]*)|--?[a-z-]+)(?![\w./:])([^`]*)")
# Places in llama.cpp, and within one product of patches/native.
UPSTREAM = ("src/", "vendor/", "x86/", "arm/")
FILE = re.compile(r"[\w-]+(?:/[\w.-]+)*/[\w-]+\.(?:py|toml|c|h|cpp|cmake|patch|md|yml)")
FLAG = re.compile(r"(?:^|(?<=[\s\[|]))--?[a-zA-Z][\w-]*")


def named(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    return SPAN.sub("", FENCE.sub("", text))


@cache
def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", FENCE.sub("", document.read_text()), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        while slug in found:
            slug += "-1"
        found.add(slug)
    return found


def links(document: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text()))


def linked(document: Path) -> Iterator[tuple[Path, str]]:
    """Every file that a page links to, with the anchor."""
    for target in links(document):
        if not target.startswith(("http:", "https:", "mailto:")):
            path, _, anchor = unquote(target).partition("#")
            yield (document.parent / path).resolve() if path else document, anchor


def commands(document: Path) -> Iterator[tuple[str, str]]:
    """Every command line of ours in a page: the verb, and what follows on the line."""
    text = document.read_text()
    fenced = [match[0] for match in FENCE.finditer(text) if not match[0].lstrip(" `").startswith("python")]
    rest = FENCE.sub("", text)
    blocks = [*fenced, *CODE_LINE.findall(re.sub(r"\\\n\s*", " ", rest)), *SPAN.findall(rest)]
    for line in "\n".join(blocks).splitlines():
        for verb, arguments in COMMAND.findall(line):
            plain = re.sub(r'"[^"]*"|\'[^\']*\'', "", arguments)
            yield verb, re.split(r"\s\\?\||\s#|\s{2,}|[;>]|&&|\$\(|\.\.\.", plain)[0]


@cache
def help_of(*verb: str) -> str:
    result = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, f"there is no verb {' '.join(verb)}"
    return result.output


def members(verb: str) -> set[str]:
    """The verbs of a verb such as `chats`."""
    _, _, listed = help_of(verb).partition("Commands:\n")
    return set(re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE))


def flags_of(*verb: str) -> set[str]:
    return set(FLAG.findall(help_of(*verb).replace(",", " ").replace("/", " ")))


def test_the_table_lists_every_file() -> None:
    assert table() in PAGE.read_text(), "run: python -m tests.file_table"
    assert all((ROOT / name).exists() for name in OTHERS)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


@pytest.mark.engine
@pytest.mark.model
def test_the_example_of_the_readme_runs(with_engine: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    exec(compile(example, "README.md", "exec"), {})
    assert "Paris" in capsys.readouterr().out


def test_every_page_has_a_kind_and_is_reachable_from_the_index() -> None:
    pages = set(DOCS.rglob("*.md"))
    assert {page.parent.name for page in pages - {INDEX}} == KINDS
    reached, waiting = {INDEX}, [INDEX]
    while waiting:
        for target, _ in linked(waiting.pop()):
            if target in pages and target not in reached:
                reached.add(target)
                waiting.append(target)
    assert not {named(page) for page in pages - reached}
    assert {named(page) for page in pages - {INDEX}} <= {named(target) for target, _ in linked(INDEX)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in linked(document):
        assert target.exists(), target
        assert target.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(target), f"{named(target)} has no heading #{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_commands_name_verbs_and_flags_that_exist(document: Path) -> None:
    for verb, arguments in commands(document):
        if verb.startswith("-"):
            assert verb in flags_of(), verb
        else:
            words = arguments.split()
            path = (verb, words[0]) if words and words[0] in members(verb) else (verb,)
            unknown = set(FLAG.findall(arguments)) - flags_of(*path)
            assert not unknown, f"edgellm {' '.join(path)} has no {unknown}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_files_that_are_named_exist(document: Path) -> None:
    if document.name.startswith("add-a-") or document.name == "CHANGELOG.md":  # these name files that come or went
        return
    for span in SPAN.findall(FENCE.sub("", document.read_text())):
        if FILE.fullmatch(span) and not span.startswith(UPSTREAM) and span.lower() == span:
            places = (ROOT / span, ROOT / "edgellm" / span, ROOT / "patches" / span)
            assert any(place.exists() for place in places), span


def test_commands_are_found() -> None:
    """The test above would pass with a pattern that finds nothing."""
    found = [command for document in DOCUMENTS for command in commands(document)]
    assert len(found) > 300
    assert ("bench", " --shape bitnet-2b --against stock") in found
    assert ("batch", " questions.jsonl -o part{}.jsonl -m smollm2 -q --shard {}/4") in found


def test_every_exit_code_is_documented() -> None:
    reference = (DOCS / "reference" / "command-line.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", reference, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EdgellmError)]
    assert {kind.exit_code for kind in kinds} <= documented
    assert {129, 130, 141, 143} <= documented


def test_error_codes_are_distinct() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EdgellmError)]
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))


def test_make_help_prints_every_target() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert {line.split()[1] for line in listed.splitlines()} == set(phony[1].split())


def test_ci_keeps_its_cache_at_a_path_that_the_cache_action_takes() -> None:
    """It refuses `..`, and would say so only in a warning."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    home = re.search(r"EDGELLM_HOME: (\S.*)", workflow)
    assert home is not None and ".." not in home[1] and "path: ${{ env.EDGELLM_HOME }}" in workflow


def test_pre_commit_needs_no_network() -> None:
    configuration = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (\S+)", configuration) == ["local"]
