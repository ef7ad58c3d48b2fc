"""`edgellm docs add|ls|show|sync|rm|search`: the user's documents, indexed on this machine and searched."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edgellm.answers import answer_cache
from edgellm.cache.answer_cache import Looked, key
from edgellm.cache.decision import DEFAULT_ERROR
from edgellm.documents.answers.citation import place
from edgellm.documents.answers.prompt import SYSTEM
from edgellm.documents.answers.question import DocumentAnswer
from edgellm.documents.answers.stored import restored, stored
from edgellm.documents.collection import RERANKER, IndexedFile
from edgellm.documents.index import EMBEDDER, FileOutcome, Outcome, roots_of
from edgellm.documents.search import Passage
from edgellm.documents.shelf import Shelf
from edgellm.errors import EdgellmError, UsageError
from edgellm.exit_codes import ExitCode
from edgellm.files import identity
from edgellm.library import NO_EMBEDDER, Documents, choose, docs
from edgellm.settings import DEFAULT_MODEL
from edgellm.ui import options
from edgellm.ui.citations import INDENT, excerpt, print_checked
from edgellm.ui.console import is_terminal, note, print_fields, print_line, print_table
from edgellm.ui.flags import load_options, open_model
from edgellm.ui.interrupt import Interrupt
from edgellm.ui.live import show_answer
from edgellm.ui.local_model import find_model
from edgellm.ui.model_names import model_names
from edgellm.ui.options import JsonOutput, LoadFlags, QuietOutput
from edgellm.ui.progress import lasting, progress
from edgellm.ui.render import render, render_line
from edgellm.units import size
from edgellm.workspace import workspace

Name = Annotated[str | None, typer.Option("--name", "-n", help="The collection. [default: the only one, or documents]")]
Collection = Annotated[str | None, typer.Argument(help="The collection; one alone needs no name.")]
Embed = Annotated[
    str | None,
    typer.Option("--embed", help="The embedding model; none: find by words alone. [default: minilm, or e5-small]"),
]
# Lines of a passage that a terminal shows.
EXCERPT_LINES = 6

Rerank = Annotated[
    str | None,
    typer.Option(
        "--rerank", help="A reranker for this collection, from now on; none: no more.", autocompletion=model_names
    ),
]
RerankNow = Annotated[
    str | None,
    typer.Option(
        "--rerank",
        help="Put the best passages in order with this reranker; none: without. [default: the collection's]",
        show_default=False,
        autocompletion=model_names,
    ),
]


@dataclass(frozen=True, slots=True)
class Update:
    """What `add` or `sync` did to a collection; `files` are those that are new, changed, gone or unreadable."""

    name: str
    n_files: int
    n_chunks: int
    n_added: int
    n_changed: int
    n_removed: int
    n_unreadable: int
    n_vectors: int
    seconds: float
    files: list[FileOutcome]


@dataclass(frozen=True, slots=True)
class ListedCollection:
    """A collection in a list; `size` is that of its file, in bytes."""

    name: str
    n_files: int
    n_chunks: int
    n_tokens: int
    embedder: str
    size: int


@dataclass(frozen=True, slots=True)
class WholeCollection:
    """A collection with its files; `roots` are the files and folders it was made of."""

    name: str
    path: Path
    roots: list[Path]
    embedder: str
    reranker: str
    n_chunks: int
    n_without_vector: int
    files: list[IndexedFile]


@dataclass(frozen=True, slots=True)
class DocumentSearch:
    """The passages found in a collection, best first; `seconds` is the time without opening and embedding model."""

    name: str
    question: str
    seconds: float
    results: list[Passage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RemovedCollection:
    """A collection that is gone."""

    name: str


def _shelf() -> Shelf:
    return Shelf(workspace().settings.documents)


def add(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    name: Name = None,
    embed: Embed = None,
    rerank: Rerank = None,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> Update:
    """Read documents into a collection: text, Markdown, HTML, code, CSV, XLSX, DOCX, PPTX, EPUB, PDF and mail.

    \b
    Examples: edgellm docs add ~/manuals
              edgellm docs add report.pdf prices.xlsx --name office
    """
    for path in paths:
        if not path.expanduser().exists():
            raise UsageError(f"{path} does not exist")
    return _update(
        name, embed, rerank, offline, output,
        lambda it, on_file, stop: it.add(*paths, on_file=on_file, interrupted=stop),
    )  # fmt: skip


def sync(
    name: Collection = None,
    embed: Embed = None,
    rerank: Rerank = None,
    offline: options.Offline = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every few seconds, until Ctrl-C.")] = False,
    *,
    output: QuietOutput,
) -> Update:
    """Read only what changed in the files and folders of a collection.

    \b
    Examples: edgellm docs sync manuals
              edgellm docs sync manuals --watch --json    # a line of JSON for each change
    """
    chosen = _existing(name)
    if watch and output.as_json:  # a line for the first look as well
        _watch(chosen, embed, rerank, offline, output, [])
    done = _update(
        chosen, embed, rerank, offline, output,
        lambda it, on_file, stop: it.sync(on_file=on_file, interrupted=stop),
    )  # fmt: skip
    if watch:
        note("watching; Ctrl-C ends it")
        _watch(chosen, embed, rerank, offline, output, done.files)
    return done


Work = Callable[[Documents, Callable[[FileOutcome], None], Callable[[], bool]], Outcome]


def _update(
    name: str | None, embed: str | None, rerank: str | None, offline: bool, output: QuietOutput, work: Work
) -> Update:
    start = time.monotonic()

    def tell_choice(line: str) -> None:
        if not output.silent:
            note(line)

    with (
        Interrupt() as interrupt,
        progress(quiet=output.silent) as report,
        docs(name, embed=embed, rerank=rerank, offline=offline, report=report, notice=tell_choice) as collection,
    ):
        outcome = work(collection, lambda file: None if output.silent else _tell(file), interrupt.requested)
        result = _updated(collection, outcome, time.monotonic() - start)
    render(output, result, _print_update)
    if outcome.interrupted:
        note(f"stopped; what was read can be searched, and this goes on: edgellm docs sync {collection.name}")
    elif not output.silent and result.n_chunks:
        name = "" if len(_shelf().names()) == 1 else f"{result.name} "
        note(f'next: edgellm docs search {name}"..."')
    if outcome.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if result.n_unreadable and not result.n_files:
        raise typer.Exit(ExitCode.FAILED)
    return result


def _tell(file: FileOutcome) -> None:
    """What could not be read of a file."""
    if file.state != "unchanged":
        for line in filter(None, [file.error, *file.notes]):
            note(f"{file.name}: {line}")


def _updated(collection: Documents, outcome: Outcome, seconds: float) -> Update:
    files = collection.files()
    changes = [file for file in outcome.files if file.state != "unchanged"]
    return Update(
        collection.name, sum(not file.error for file in files), sum(file.n_chunks for file in files),
        outcome.count("added"), outcome.count("changed"), outcome.count("removed"),
        outcome.count("unreadable", "skipped"), outcome.n_vectors, seconds, changes,
    )  # fmt: skip


def _watch(
    name: str, embed: str | None, rerank: str | None, offline: bool, output: QuietOutput, known: list[FileOutcome]
) -> NoReturn:
    """Show what changes, each time something does; what could not be read is reported once."""
    reported = {file.path: file for file in known if file.error}

    def show_changes(outcome: Outcome, seconds: float) -> None:
        now = {file.path: file for file in outcome.files if file.state != "unchanged"}
        new = [file for path, file in now.items() if reported.get(path) != file]
        reported.clear()
        reported.update({path: file for path, file in now.items() if file.error})
        if not new and not outcome.n_vectors:
            return
        done = _updated(collection, replace(outcome, files=new), seconds)
        if output.as_json:
            render_line(output, done)
        else:
            for file in new:
                said = "; ".join(filter(None, [file.error, *file.notes]))
                print_line(f"{file.state:10}  {file.name}  {said}".rstrip())
            print_line(f"{datetime.now():%H:%M:%S}  {_summary(done)}")
            sys.stdout.flush()

    with Interrupt() as interrupt, docs(name, embed=embed, rerank=rerank, offline=offline) as collection:
        collection.watch(show_changes, interrupted=interrupt.requested)
    raise typer.Exit(ExitCode.INTERRUPTED)


def _print_update(done: Update) -> None:
    print_line(f"{_summary(done)}  ({done.seconds:.1f} s)")


def _summary(done: Update) -> str:
    counts = [
        (done.n_added, "new"), (done.n_changed, "changed"), (done.n_removed, "gone"), (done.n_unreadable, "not read"),
    ]  # fmt: skip
    said = ", ".join(f"{count:,} {word}" for count, word in counts if count) or "nothing changed"
    return f"{done.name}: {said}; {done.n_files:,} files, {done.n_chunks:,} chunks"


def list_collections(*, output: JsonOutput) -> list[ListedCollection]:
    """List the collections.

    Example: edgellm docs ls
    """
    shelf = _shelf()
    found = []
    for name in shelf.names():
        with shelf.open(name) as collection:
            files = [file for file in collection.files() if not file.error]
            counts = (len(files), sum(file.n_chunks for file in files), sum(file.n_tokens for file in files))
            embedder = collection.setting(EMBEDDER) or ""
            found.append(ListedCollection(name, *counts, embedder, collection.path.stat().st_size))
    return render(output, found, _print_list)


def _print_list(found: list[ListedCollection]) -> None:
    if not found:
        note("no documents yet; edgellm docs add PATH")
        return
    counts = [(f"{each.n_files:,}", f"{each.n_chunks:,}", f"{each.n_tokens:,}") for each in found]
    rows = [
        (each.name, *numbers, each.embedder or "-", size(each.size))
        for each, numbers in zip(found, counts, strict=True)
    ]
    print_table(("NAME", "FILES", "CHUNKS", "TOKENS", "EMBEDDER", "SIZE"), rows, right=(1, 2, 3, 5))


def show(name: Collection = None, *, output: JsonOutput) -> WholeCollection:
    """Show the files of a collection, and what of them could not be read.

    Example: edgellm docs show manuals
    """
    with _shelf().open(chosen := _existing(name)) as collection:
        whole = WholeCollection(
            chosen, collection.path, roots_of(collection), collection.setting(EMBEDDER) or "",
            collection.setting(RERANKER) or "", collection.n_chunks, collection.n_without_vector, collection.files(),
        )  # fmt: skip
    return render(output, whole, _print_whole)


def _print_whole(whole: WholeCollection) -> None:
    embedder = "none: found by words alone" if whole.embedder in ("", NO_EMBEDDER) else whole.embedder
    waiting = f"  ({whole.n_without_vector:,} without a vector: edgellm docs sync)" if whole.n_without_vector else ""
    print_fields([
        ("collection", whole.name), ("from", ", ".join(map(str, whole.roots))),
        ("chunks", f"{whole.n_chunks:,}{waiting}"), ("embedder", embedder),
        ("reranker", whole.reranker or "none"),
    ])  # fmt: skip
    rows = [
        (file.name, f"{file.n_pages or '-'}", f"{file.n_chunks:,}", file.error or "; ".join(file.notes))
        for file in whole.files
    ]
    print_table(("FILE", "PAGES", "CHUNKS", "NOTES"), rows, right=(1, 2))


def search(
    words: Annotated[list[str], typer.Argument(metavar="[NAME] QUESTION", help="The collection, and what to find.")],
    limit: Annotated[int, typer.Option("--limit", "-k", min=1, max=100, help="Find so many passages.")] = 5,
    rerank: RerankNow = None,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> DocumentSearch:
    """Find the passages that fit a question, by words and by meaning.

    \b
    Examples: edgellm docs search "how long is the warranty?"
              edgellm docs search manuals reset the password
              edgellm docs search manuals --rerank bge-reranker-v2-m3 reset the password
    """
    name, question = choose(words, _shelf().names())
    chosen = _existing(name)
    if not question.strip():
        raise UsageError("there is no question", hint='edgellm docs search "how long is the warranty?"')
    with (
        progress(quiet=output.silent) as report,
        docs(chosen, rerank=rerank, offline=offline, report=report) as collection,
    ):
        collection.prepare()
        start = time.perf_counter()
        found = collection.search(question, limit)
        seconds = time.perf_counter() - start
    return render(output, DocumentSearch(chosen, question, seconds, found), _print_passages)


def _print_passages(result: DocumentSearch) -> None:
    """On a terminal the lines that fit best; whole passages would be some screens."""
    if not result.results:
        note("nothing found")
    is_short = is_terminal(sys.stdout)
    for number, passage in enumerate(result.results, 1):
        text = excerpt(passage.text, result.question, EXCERPT_LINES) if is_short else passage.text.strip()
        print_line(f"[{number}] {place(passage)}")
        print_line("\n".join(f"    {line}" for line in text.splitlines() if line.strip()) + "\n", indent=INDENT)
    if is_short and result.results:
        note("… stands for what is left out; --json has the whole passages")


def ask(
    words: Annotated[list[str], typer.Argument(metavar="[NAME] QUESTION", help="The collection, and the question.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model that answers.", autocompletion=model_names)
    ] = DEFAULT_MODEL,
    limit: Annotated[int, typer.Option("--limit", "-k", min=1, max=50, help="Answer from so many passages.")] = 5,
    rerank: RerankNow = None,
    no_cache: options.NoCache = False,
    error: options.AnswerError = DEFAULT_ERROR,
    offline: options.Offline = False,
    *,
    load: LoadFlags,
    output: QuietOutput,
) -> DocumentAnswer:
    """Answer a question from documents, with quotations that are checked to stand there.

    \b
    Examples: edgellm docs ask "how long is the warranty?"
              edgellm docs ask manuals -m bitnet-2b "how do I reset the password?"
    """
    name, question = choose(words, _shelf().names())
    chosen = _existing(name)
    if not question.strip():
        raise UsageError("there is no question", hint='edgellm docs ask "how long is the warranty?"')
    here = workspace(offline=offline)
    with ExitStack() as stack:
        with progress(quiet=output.silent) as report:
            collection = stack.enter_context(docs(chosen, rerank=rerank, offline=offline, report=report))
            cache = (
                None
                if no_cache
                else stack.enter_context(answer_cache(here, on_failure=_without_cache, error=error, report=report))
            )
            local = find_model(here, model, quiet=output.silent)
            scope = key(
                what="docs ask", documents=collection.content, model=identity(local.path), n=limit,
                n_ctx=load.ctx_size, kv=load.kv, prompt=SYSTEM, rerank=rerank,
            )  # fmt: skip
            looked = cache.look(scope, question) if cache else None
            known = _known(looked, question) if looked and looked.answer else None
            if known is None:
                collection.prepare()
        if known is not None:
            return render(output, known, _print_known)
        opened = stack.enter_context(open_model(here, model, load_options(load, None), quiet=output.silent))
        collection.report = lasting(quiet=output.silent)  # no bar is left when the answer begins
        asked = collection.stream(question, opened, n=limit)
        if asked.stream is not None and not output.as_json:
            show_answer(asked.stream, live=not output.quiet)
        if (n_out := asked.question.prompt.n_left_out) and not output.silent:
            n_found = n_out + len(asked.question.prompt.sources)
            note(f"[left out of the prompt, for want of room: {n_out} of the {n_found} chunks found]")
        answer = asked.result
        if cache and looked and asked.stream is not None and asked.stream.answer.finish_reason != "interrupted":
            cache.keep(looked, stored(answer), text=answer.answer, model=local.label)
        return render(output, answer, print_checked)


def _without_cache(error: EdgellmError) -> None:
    note(f"{error.what}: {error.why}; answering without it  ({error.hint})")


def _known(looked: Looked, question: str) -> DocumentAnswer | None:
    """The answer that was found; None if another version of edgellm stored it."""
    try:
        return replace(restored(looked.answer or {}, question), cached=looked.origin)
    except (KeyError, TypeError):
        return None


def _print_known(found: DocumentAnswer) -> None:
    note(str(found.cached))
    if found.draft:
        print_line(found.draft)
    print_checked(found)


def rm(
    names: Annotated[list[str], typer.Argument(help="Collections.")], *, output: JsonOutput
) -> list[RemovedCollection]:
    """Remove collections; the documents themselves stay where they are. Does not ask.

    Example: edgellm docs rm manuals
    """
    shelf = _shelf()
    for name in names:
        shelf.require(name)
    for name in names:
        shelf.remove(name)
    said = f"removed: {', '.join(names)}; the documents stay"
    return render(output, [RemovedCollection(name) for name in names], lambda _: note(said))


def _existing(name: str | None) -> str:
    shelf = _shelf()
    if name is None:
        return shelf.only()
    shelf.require(name)
    return name
