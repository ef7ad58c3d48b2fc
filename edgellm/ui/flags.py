"""What was typed, as the options that the API takes: flags become `LoadOptions` and `AnswerOptions`.

model = open_model(here, name, load_options(load, system), quiet=output.silent)
model.answer_stream(prompt, answer_options(sampling, limit, form, here))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgellm.adapters import named_adapter
from edgellm.api import OpenModel
from edgellm.documents.answers.options import document_options
from edgellm.engine.rpc.address import parse_addresses
from edgellm.errors import UsageError
from edgellm.run.answer_options import AnswerOptions, check_stops
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadOptions
from edgellm.settings import is_false
from edgellm.ui.console import note, printable
from edgellm.ui.local_model import find_model
from edgellm.ui.options import FormFlags, LengthFlags, LimitFlags, LoadFlags, LoopAction, SamplingFlags
from edgellm.ui.progress import lasting, progress
from edgellm.units import parse_size
from edgellm.workspace import Workspace, workspace

if TYPE_CHECKING:
    from edgellm.library import Documents


def open_model(here: Workspace, name: str, options: LoadOptions, *, quiet: bool) -> OpenModel:
    """A model by name or path, in memory, with a bar that only shows when it takes long enough to matter."""
    local = find_model(here, name, quiet=quiet)
    here.engine()  # its libraries take a moment that is no part of the loading
    with progress(quiet=quiet) as report:
        opened = OpenModel(here, local, options, report=report)
    try:
        opened.self_test()
    except BaseException:
        opened.close()
        raise
    warn_of_nonsense(opened, quiet=quiet)
    if options.workers and not quiet:
        note(str(opened.split) if opened.split else "all layers fit here: the workers have too little memory for any")
    return opened


def warn_of_nonsense(model: OpenModel, *, quiet: bool) -> None:
    """Say so if the model failed its self-test."""
    if model.doubt and not quiet:
        what = f"{printable(model.name)} begins with nonsense: {model.doubt}"
        note(f"warning: {what}; the file may be damaged (edgellm verify)")


def require_documents(here: Workspace, name: str | None, options: AnswerOptions) -> None:
    """Refuse documents that are not there, are empty or cannot be asked so, before a model is loaded.

    Raises:
        CollectionNotFound, UsageError.
    """
    if name is not None:
        from edgellm.library import existing_documents

        document_options(options)
        existing_documents(here, name).close()


def prepare_documents(here: Workspace, name: str, *, quiet: bool) -> Documents:
    """The documents of that name, ready to be asked, with a bar if their models must be pulled, and for reranking."""
    from edgellm.library import open_documents

    with progress(quiet=quiet) as report:
        documents = open_documents(here, name, report=report)
    documents.report = lasting(quiet=quiet)
    return documents


def load_options(
    load: LoadFlags,
    system: str | None,
    n_slots: int = 1,
    *,
    lora: Sequence[str] | None = None,
    workers: str | None = None,
    layers_here: int | None = None,
) -> LoadOptions:
    """How to open a model; `lora` are its adapters and `workers` its workers, as they were typed.

    Raises:
        UsageError: --max-memory or --prompt-cache is no size, an adapter is not there, or a worker's address is none.
    """
    if layers_here is not None and not workers:
        raise UsageError("--layers-here is for a model on workers", hint="--workers HOST:PORT")
    cap = parse_size(load.max_memory, "--max-memory") if load.max_memory else None
    return LoadOptions(
        load.ctx_size, load.threads, load.kv, cap, system, load.force, n_slots, use_tuning=load.tuned,
        prompt_cache=prompt_cache_size(load.prompt_cache), draft=load.drafts,
        adapters=tuple(named_adapter(workspace(), text) for text in lora or ()),
        workers=parse_addresses(workers) if workers else (), n_here=layers_here,
    )  # fmt: skip


def prompt_cache_size(text: str | None) -> int | None:
    """The bytes of prompts to keep on disk: 0 for `off`, None where nothing was typed.

    Raises:
        UsageError: it is neither a size nor `off`.
    """
    if text is None:
        return None
    return 0 if is_false(text.strip()) else parse_size(text, "--prompt-cache")


def unescaped(text: str) -> str:
    """A text that was typed, with `\\n` as a new line and `\\t` as a tab."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def answer_options(sampling: SamplingFlags, length: LengthFlags, form: FormFlags, here: Workspace) -> AnswerOptions:
    """How to answer.

    Raises:
        UsageError, FileAccessError: the schema or grammar is wrong, or its file cannot be read.
    """
    limits = Limits(length.max_tokens, loop_guard=length.loop_guard)
    if isinstance(length, LimitFlags):
        retry = length.on_loop is LoopAction.RETRY
        limits = Limits(
            length.max_tokens,
            max_seconds=length.max_time,
            loop_guard=length.loop_guard,
            retry=retry,
            stop=check_stops([unescaped(text) for text in length.stop or ()]),
        )
    seed = {} if sampling.seed is None else {"seed": sampling.seed}
    structure = None
    if form.form is not None or form.grammar is not None:
        from edgellm.run.structure import from_options

        structure = from_options(form.form, form.grammar)
    return AnswerOptions({**sampling.asked, **seed}, limits, structure)
