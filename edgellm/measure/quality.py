"""Measures the quality of a model on a text, alone or against a base model, window by window.

    quality = measure(engine, path, read_sample(), QualityOptions(), against=base, watch=UNOBSERVED)
    quality.model.perplexity, quality.divergence.mean

The method is llama-perplexity's. The text is split into consecutive windows of `n_ctx` tokens, and the rest is dropped.
If the vocabulary starts texts with BOS, it replaces the first token of each window. The first half of a window is only
context; each later token except the last is a position that predicts the next one. Both models decode the same batch of
a window in turn, so that memory holds the logits of only one batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from edgellm.engine.base import Context, Engine, Model
from edgellm.errors import UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.machine import memory
from edgellm.machine.cpu import usable_cores
from edgellm.measure.sample import Sample
from edgellm.measure.statistics import ROWS, Divergence, Perplexity, PredictionTally
from edgellm.models.fit.memory import RunPlan, choose_context, estimate, require_fit, together
from edgellm.models.fit.outline import Outline
from edgellm.progress import UNOBSERVED, Observer, Progress

DEFAULT_CONTEXT = 512
# Tokens per decode call; each may need a row of n_vocab logits.
N_BATCH = 64
# Rows of float32 logits in memory per model: the engine's result, its output buffer and our copy of a batch, plus the
# statistics' temporaries, four times ROWS in float64.
N_OUTPUTS = 3 * N_BATCH + 2 * 4 * ROWS


@dataclass(frozen=True, slots=True)
class QualityOptions:
    """How to measure. None means the default: windows of 512 tokens, the whole text, all cores."""

    n_ctx: int | None = None
    n_tokens: int | None = None
    n_threads: int | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """The results of one model in a measurement."""

    path: Path
    quant: str
    perplexity: Perplexity


@dataclass(frozen=True, slots=True)
class Quality:
    """The result over `n_positions` positions in windows of `n_ctx` tokens.

    `base` and `divergence` are None without a base. Each model read `n_tokens`, which took `seconds` of wall time,
    without loading. `complete` is false when the user stopped the measurement early.
    """

    model: MeasuredModel
    base: MeasuredModel | None
    divergence: Divergence | None
    text: str
    text_bytes: int
    n_ctx: int
    n_tokens: int
    n_positions: int
    seconds: float
    complete: bool


def measure(
    engine: Engine, path: Path, sample: Sample, options: QualityOptions, *, against: Path | None, watch: Observer
) -> Quality:
    """Measure a model file on a text and, if `against` is given, its divergence from that file's model.

    Raises:
        CorruptFile, UnsupportedModel: a file is damaged, not GGUF, or not supported by the engine.
        DoesNotFit: there is too little memory for both models (unless `options.force`).
        ContextTooLarge: the windows are longer than a model's training context.
        UsageError: see `compare`.
        KeyboardInterrupt: stopped before anything was measured.
    """
    paths = [path] if against is None else [path, against]
    n_ctx = _check_headers(paths, options)
    with ExitStack() as stack:
        models = []
        for each in paths:
            models.append(engine.load(each, report=watch.report))
            stack.callback(models[-1].close)
        return compare(models, sample, replace(options, n_ctx=n_ctx), watch)


def compare(models: Sequence[Model], sample: Sample, options: QualityOptions, watch: Observer = UNOBSERVED) -> Quality:
    """Measure one loaded model, or the first of two against the second.

    Raises:
        UsageError: the text is shorter than one window, or the models have different tokenizers.
    """
    start = time.perf_counter()
    n_ctx = options.n_ctx or DEFAULT_CONTEXT
    windows = _windows(models, sample, n_ctx, options.n_tokens)
    n_threads = options.n_threads or usable_cores()
    tally = PredictionTally()
    with ExitStack() as stack:
        contexts = []
        for model in models:
            contexts.append(model.open_context(n_ctx=n_ctx, n_batch=min(N_BATCH, n_ctx), n_threads=n_threads))
            stack.callback(contexts[-1].close)
        n_tokens, complete = _fill(tally, contexts, windows, watch)
    if not len(tally):
        raise KeyboardInterrupt
    model, *base = models
    return Quality(
        model=MeasuredModel(model.info.path, model.info.quant, tally.perplexity()),
        base=MeasuredModel(base[0].info.path, base[0].info.quant, tally.base_perplexity()) if base else None,
        divergence=tally.divergence() if base else None,
        text=sample.name,
        text_bytes=sample.n_bytes,
        n_ctx=n_ctx,
        n_tokens=n_tokens,
        n_positions=len(tally),
        seconds=time.perf_counter() - start,
        complete=complete,
    )


def _check_headers(paths: Sequence[Path], options: QualityOptions) -> int:
    """Return the window length; raise before loading if it, or the memory need of both models, is too large."""
    with ExitStack() as stack:
        files = [stack.enter_context(GGUFFile.open(path)) for path in paths]
        for gguf in files:
            if not gguf.get_bool(gguf.key("attention.causal"), True):
                raise UsageError(f"{gguf.path.name} predicts no tokens", why="it is an embedding model")
        trained = min(gguf.get_int(gguf.key("context_length")) for gguf in files)
        n_ctx = choose_context(trained, options.n_ctx or min(DEFAULT_CONTEXT, trained))
        plan = RunPlan(n_ctx=n_ctx, n_batch=N_BATCH, n_outputs=N_OUTPUTS)
        need, *others = (estimate(Outline.of([gguf]), plan) for gguf in files)
    name, otherwise = paths[0].name, "use a smaller model, a smaller --ctx-size"
    for other, path in zip(others, paths[1:], strict=True):
        need, name = together(need, other), f"{name} beside {path.name}"
        otherwise = "measure each alone, without --against"
    if not options.force:
        require_fit(need, memory.room(), name=name, plan=plan, hint=f"{otherwise}, or --force")
    return n_ctx


def _windows(models: Sequence[Model], sample: Sample, n_ctx: int, n_tokens: int | None) -> list[list[int]]:
    """Return the text as windows of `n_ctx` tokens, at most `n_tokens` in all, each starting with BOS if it has one."""
    tokens = _common_tokens(models, sample)[:n_tokens]
    if len(tokens) < n_ctx:
        raise UsageError(
            f"{len(tokens):,} tokens of {sample.name} are too few",
            why=f"a window takes {n_ctx:,} tokens, and only whole windows count",
            hint="use a longer text, or `edgellm quality` with a smaller --ctx-size",
            n_tokens=len(tokens),
            n_ctx=n_ctx,
        )
    bos = models[0].tokenize("")
    starts = range(0, len(tokens) - n_ctx + 1, n_ctx)
    return [[*bos, *tokens[start + len(bos) : start + n_ctx]] for start in starts]


def _common_tokens(models: Sequence[Model], sample: Sample) -> list[int]:
    """Return the tokens of the text, if all models agree on them: otherwise probabilities are not comparable."""
    first, *others = models
    tokens = first.tokenize(sample.text)
    for other in others:
        if other.info.n_vocab != first.info.n_vocab:
            why = f"their vocabularies have {first.info.n_vocab:,} and {other.info.n_vocab:,} tokens"
        elif other.tokenize(sample.text) != tokens:
            why = f"they split {sample.name} into different tokens"
        else:
            continue
        raise UsageError(
            f"{first.info.path.name} and {other.info.path.name} cannot be compared",
            why=why,
            hint="use the base that the model was made from",
        )
    return tokens


def _fill(
    tally: PredictionTally, contexts: Sequence[Context], windows: Sequence[Sequence[int]], watch: Observer
) -> tuple[int, bool]:
    """Measure all windows, or until interrupted; return the number of tokens read, and whether that was all."""
    total = sum(map(len, windows))
    done = 0
    for window in windows:
        for n_tokens in _window(tally, contexts, window):
            done += n_tokens
            detail = f"perplexity {tally.perplexity().value:.2f}" if len(tally) else ""
            watch.report(Progress("measuring", done, total, "tokens", detail))
            if done < total and watch.interrupted():
                return done, False
    return done, True


def _window(tally: PredictionTally, contexts: Sequence[Context], window: Sequence[int]) -> Iterator[int]:
    """Read one window with every model, batch by batch; yield the number of tokens of each batch.

    Positions n_ctx // 2 to n_ctx - 2 count. The last token is decoded all the same: without it, the last batch would
    use other kernels with a different rounding (0.1 % of the perplexity, measured).
    """
    first, last = len(window) // 2, len(window) - 1
    for context in contexts:
        context.keep(0)
    for start in range(0, len(window), N_BATCH):
        batch = window[start : start + N_BATCH]
        begin, end = max(start, first), min(start + len(batch), last)
        if begin < end:
            rows = slice(begin - start, end - start)
            tally.add(window[begin + 1 : end + 1], *(context.score(batch)[rows] for context in contexts))
        else:
            for context in contexts:
                context.decode(batch)
        yield len(batch)
