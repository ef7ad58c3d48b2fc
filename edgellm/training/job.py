"""A fine-tuning from a model and a file of examples to a GGUF file.

with FineTuneJob.prepare(request, engine, codec) as job:
    job.plan                            # rows, steps and memory, before anything is computed
    for step in job.run():
        step.loss
    result = job.finish()               # the file, and what was learnt
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
import torch

from edgellm.engine.base import Model
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.errors import DiskFull, DoesNotFit, ModelNotFound, UnsupportedModel, UsageError
from edgellm.files import sha256_of
from edgellm.formats.gguf_file import GGUFFile
from edgellm.machine import memory
from edgellm.machine.cpu import detect, usable_cores
from edgellm.progress import Progress, Report, silent
from edgellm.run.chat_template import ChatTemplate
from edgellm.training import export, state
from edgellm.training.base_model import BaseModel, WeightForm, read_directory, read_gguf
from edgellm.training.batch_tensors import n_learnt
from edgellm.training.data import read_examples
from edgellm.training.decoder import Decoder
from edgellm.training.decoder_shape import DecoderShape
from edgellm.training.loop import LoopPlan, TrainingLoop, TrainingStep
from edgellm.training.method import default_method, prepare, require_method
from edgellm.training.options import DEFAULT_RATES, FineTuneOptions, FineTuneRequest, Method
from edgellm.training.plan import FineTunePlan, Fitter, count_parameters
from edgellm.training.result import FineTuned
from edgellm.training.sequences import Row, TokenSequence, pack, split, tokenize
from edgellm.training.teacher import Teacher, require_same_vocabulary
from edgellm.training.work_directory import FREE_AND_RESUME, WorkDirectory
from edgellm.units import size

_DEFAULT_LENGTH, _STEP = 512, 64
_BF16 = {"amx_bf16", "avx512_bf16", "bf16"}


class FineTuneJob:
    """One run. `plan` is what it will take; nothing is computed or written before `run`."""

    def __init__(
        self, request: FineTuneRequest, base: BaseModel, loop_plan: LoopPlan, plan: FineTunePlan, parts: _Parts,
        work: WorkDirectory, stack: ExitStack,
    ) -> None:  # fmt: skip
        self.request, self.base, self.plan, self.work = request, base, plan, work
        self._loop_plan, self._parts, self._stack = loop_plan, parts, stack
        self._settings = _settings(request, plan, loop_plan, parts.n_threads)
        self._rows: list[dict[str, Any]] = []
        self._loop: TrainingLoop | None = None
        self._done, self._seconds = 0, 0.0
        self._before: float | None = None

    @classmethod
    def prepare(
        cls, request: FineTuneRequest, engine: LlamaEngine, codec: Quantizer, *, report: Report = silent
    ) -> FineTuneJob:
        """Read and check everything, and find out whether it fits.

        Raises:
            UsageError: options, examples, method or an earlier run stand against it.
            DoesNotFit: there is too little memory; the hint names what would fit.
            DiskFull: there is no room for two checkpoints and the result.
            ModelNotFound, CorruptFile, UnsupportedModel: the model cannot be trained.
        """
        options = request.options
        options.check()
        work = WorkDirectory.beside(request.output)
        _check_place(request, work)
        examples = read_examples(request.data)
        with ExitStack() as stack:
            stack.enter_context(work.held())
            base = _read_base(request, work, codec, report)
            method = options.method or default_method(base)
            require_method(base, method)
            with GGUFFile.open(base.header) as header:
                shape = DecoderShape.read(header)
            vocabulary = engine.load(base.header, only_vocabulary=True)
            stack.callback(vocabulary.close)
            report(Progress("tokenizing the examples"))
            length = _length(options, shape)
            sequences = tokenize(examples, vocabulary, _template(vocabulary), n_ctx=length)
            if options.length is None:  # no longer than the examples need
                longest = max(len(each.tokens) for each in sequences)
                length = min(length, -(-max(longest, _STEP) // _STEP) * _STEP)
            learn, held = split(sequences, options.held_out, options.seed)
            rows, held_rows = pack(learn, n_ctx=length), pack(held, n_ctx=length)
            plan = _plan(base, shape, options, method, length, rows, learn, held)
            _require_disk(work, base, plan, resumed=options.resume)
            n_threads = options.n_threads or usable_cores()
            if options.resume:
                plan, n_threads = _as_begun(plan, work, n_threads)
            teacher = _teacher(options, engine, vocabulary, length, n_threads, stack)
            parts = _Parts(shape, rows, held_rows, teacher, n_threads)
            return cls(request, base, _loop_plan(options, plan), plan, parts, work, stack.pop_all())

    def __enter__(self) -> FineTuneJob:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def run(
        self, interrupted: Callable[[], bool] = lambda: False, *, report: Report = silent
    ) -> Iterator[TrainingStep]:
        """Do the steps, with a checkpoint every `save_every` of them and at the end, also after an interrupt.

        Raises:
            DiskFull: a checkpoint cannot be written; the one before is whole.
            NotFinite: the loss is not finite any more.
        """
        began = time.monotonic()
        loop, trained = self._open(), self._trained
        resume = state.newest(self.work.path) if self.request.options.resume else None
        if self.request.options.resume:
            self.work.require_same(self._settings)
            self._done = state.restore(resume, trained, loop.optimizer) if resume else 0
            self._rows = self.work.rewind(self._done)
        else:
            self.work.begin(self._settings)
        self._before = next((row["held_out"] for row in self._rows if row["step"] == 0), None)
        if not self._rows:
            report(Progress("measuring the held-out loss"))
            self._before = loop.held_out_loss()
            self._note({"step": 0, "held_out": self._before})
        saved, between = self._done, True
        steps = loop.run(self._done, interrupted)
        try:
            while True:
                between = False  # what stops a step halfway leaves weights that are of no step
                step = next(steps, None)
                between = True
                if step is None:
                    return
                self._done = step.step
                self._note({**asdict(step), "memory": memory.resident()})
                if step.step % self.request.options.save_every == 0:
                    state.save(self.work.path, self._done, trained, loop.optimizer)
                    saved = self._done
                self._seconds = time.monotonic() - began
                yield step
        finally:
            if between and self._done > saved:
                state.save(self.work.path, self._done, trained, loop.optimizer)

    def finish(self, *, report: Report = silent) -> FineTuned:
        """Write the file if all steps are done, and measure what the file holds on what was held out.

        Raises:
            DiskFull: there is no room; nothing is left of the file, and a run that is resumed writes it.
            UnsupportedModel: a weight or scale does not fit into its type.
        """
        loop, output = self._open(), self.request.output
        is_adapter = self.plan.method is Method.LORA
        notes: list[str] = []
        after, path = None, None
        if self._done == self.plan.n_steps:
            if not is_adapter:
                notes += export.settle(loop.model, self.base, self._trained)
            report(Progress("measuring the held-out loss"))
            after = loop.held_out_loss()
            try:
                if is_adapter:
                    export.write_adapter(self.base, loop.model, self.request.options.scale_alpha, output)
                else:
                    export.write_model(self.base, loop.model, self._trained, output, report=report)
            except DiskFull as error:  # the last checkpoint has all steps
                raise DiskFull(error.what, why=error.why, hint=FREE_AND_RESUME, **error.facts) from error
            path = output
        losses = [row["loss"] for row in self._rows if "loss" in row]
        return FineTuned(
            path, self.request.model, self.plan.method, is_adapter, self._done, self.plan.n_steps,
            sum(row.get("tokens", 0) for row in self._rows), self._seconds, losses, self._before, after,
            memory.peak_resident(), self.work.metrics, self.work.path, notes,
        )  # fmt: skip

    def _open(self) -> TrainingLoop:
        """The loop with its model, made on first use."""
        if self._loop is None:
            torch.set_num_threads(self._parts.n_threads)
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            options, method = self.request.options, self.plan.method
            model = Decoder(self._parts.shape, self.base.weights, latent=method is Method.TERNARY)
            model.checkpointing = self.plan.checkpointing
            self._trained = prepare(model, method, rank=options.rank, alpha=options.scale_alpha, seed=options.seed)
            if method is not Method.TERNARY:
                self.base = _without_latent(self.base)
            model.to(device)
            self._loop = TrainingLoop(
                model, self._trained, self._parts.rows, self._parts.held_out, self._loop_plan, device=device,
                teacher=self._parts.teacher,
            )  # fmt: skip
        return self._loop

    def _note(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self.work.append(row)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the loop is made of, but the model."""

    shape: DecoderShape
    rows: Sequence[Row]
    held_out: Sequence[Row]
    teacher: Teacher | None
    n_threads: int


def _check_place(request: FineTuneRequest, work: WorkDirectory) -> None:
    """Raise `UsageError` for an output that would overwrite something, and for a run that was begun before."""
    output = request.output
    if not output.absolute().parent.is_dir():
        raise UsageError(f"there is no directory {output.absolute().parent}", hint="-o another place")
    if output.exists():
        raise UsageError(f"{output} exists already", why="a trained model is never overwritten", hint="another -o")
    if work.exists and not request.options.resume:
        why = f"{work.path} holds a run that was begun before"
        raise UsageError("this run was begun before", why=why, hint=f"--resume, or rm -r {work.path}")
    if request.options.resume:
        work.settings()


def _read_base(request: FineTuneRequest, work: WorkDirectory, codec: Quantizer, report: Report) -> BaseModel:
    path, options = request.model, request.options
    if path.is_dir():
        _require_room(path.name, sum(each.stat().st_size for each in path.glob("*.safetensors")) * 2)
        return read_directory(path, work.path, outtype=options.outtype, head=options.head, report=report)
    if options.outtype or options.head:
        raise UsageError("--outtype and --head are for checkpoint directories", why="a GGUF file keeps its types")
    if not path.is_file():
        raise ModelNotFound(f"there is no model {path}", hint="a GGUF file or a checkpoint directory")
    with GGUFFile.open(path) as gguf:
        DecoderShape.read(gguf)  # before its weights are read
        _require_room(path.name, gguf.n_params * 4)
    return read_gguf(path, codec, report=report)


def _require_room(name: str, n_bytes: int) -> None:
    available = memory.available()
    if n_bytes > available:
        what = f"the weights of {name} need {size(n_bytes)} as float32, {size(available)} is available"
        raise DoesNotFit(what, hint="a smaller model", needed=n_bytes, available=available)


def _template(vocabulary: Model) -> ChatTemplate | None:
    info = vocabulary.info
    return ChatTemplate(info.chat_template, bos=info.bos, eos=info.eos) if info.chat_template else None


def _length(options: FineTuneOptions, shape: DecoderShape) -> int:
    length = min(_DEFAULT_LENGTH, shape.n_ctx) if options.length is None else options.length
    if not 8 <= length <= shape.n_ctx:
        why = f"the context of the model is {shape.n_ctx:,} tokens"
        raise UsageError(f"--length is {length}", why=why, hint=f"8 to {shape.n_ctx}")
    return length


def _plan(
    base: BaseModel,
    shape: DecoderShape,
    options: FineTuneOptions,
    method: Method,
    length: int,
    rows: Sequence[Row],
    learn: Sequence[TokenSequence],
    held: Sequence[TokenSequence],
) -> FineTunePlan:
    available = memory.available()
    # What the weights take was taken already when they were read.
    held_bytes = 4 * base.n_params
    micro, checkpointing, need = Fitter(base, shape, options, available + held_bytes).choose(method, length)
    n_steps = options.steps or -(-options.epochs * len(rows) // options.batch)
    return FineTunePlan(
        method, length, options.batch, micro, checkpointing, n_steps, len(rows), len(learn), len(held),
        sum(row.n_tokens for row in rows), n_learnt(rows), base.n_params,
        count_parameters(base, method, options.rank).trained, need, available + held_bytes,
    )  # fmt: skip


def _require_disk(work: WorkDirectory, base: BaseModel, plan: FineTunePlan, *, resumed: bool) -> None:
    """Room for the result, and for a new checkpoint beside the one before."""
    result = 4 * plan.n_trained if plan.method is Method.LORA else export.file_bytes(base)
    n_checkpoints = 1 if resumed else 2
    work.require_room(result + n_checkpoints * state.COPIES * 4 * plan.n_trained, "the run", "-o on a larger disk")


def _loop_plan(options: FineTuneOptions, plan: FineTunePlan) -> LoopPlan:
    return LoopPlan(
        plan.n_steps, plan.batch, plan.micro, options.rate or DEFAULT_RATES[plan.method], options.weight_decay,
        options.seed, options.evaluate_every, bool(_BF16 & set(detect().features)), options.teacher_weight,
    )  # fmt: skip


def _as_begun(plan: FineTunePlan, work: WorkDirectory, n_threads: int) -> tuple[FineTunePlan, int]:
    """Rows at once, checkpointing and threads as the run began with: they decide in which order numbers are added."""
    before = work.settings()
    micro, checkpointing = before.get("micro"), before.get("checkpointing")
    if not isinstance(micro, int) or not 0 < micro <= plan.batch or not isinstance(checkpointing, bool):
        raise UsageError("the run cannot be resumed", why=f"{work.path} is damaged", hint=f"rm -r {work.path}")
    threads = before.get("threads")
    n_threads = threads if isinstance(threads, int) and 0 < threads <= 1024 else n_threads
    return replace(plan, micro=micro, checkpointing=checkpointing), n_threads


def _settings(request: FineTuneRequest, plan: FineTunePlan, loop: LoopPlan, n_threads: int) -> dict[str, Any]:
    """What must be the same when a run is resumed, as JSON."""
    model = request.model
    files = sorted(model.glob("*.safetensors")) if model.is_dir() else [model]
    options = request.options
    return {
        "model": [[file.name, file.stat().st_size] for file in files],
        "data": sha256_of(request.data),
        "method": plan.method.value,
        "length": plan.length,
        "rank": options.rank,
        "alpha": options.scale_alpha,
        "held_out": options.held_out,
        "teacher": None if options.teacher is None else options.teacher.name,
        "checkpointing": plan.checkpointing,
        "threads": n_threads,
        **asdict(loop),
    }


def _teacher(
    options: FineTuneOptions, engine: LlamaEngine, vocabulary: Model, length: int, n_threads: int, stack: ExitStack
) -> Teacher | None:
    if options.teacher is None:
        return None
    model = engine.load(options.teacher)
    stack.callback(model.close)
    require_same_vocabulary(vocabulary, model)
    if length > model.info.n_ctx_train:
        why = f"its context is {model.info.n_ctx_train:,} tokens"
        raise UnsupportedModel("the teacher's context is too short", why=why, hint=f"--length {model.info.n_ctx_train}")
    teacher = Teacher(model, n_ctx=length, n_threads=n_threads)
    stack.callback(teacher.close)
    return teacher


def _without_latent(base: BaseModel) -> BaseModel:
    """The model without the float32 weights behind codes, which take no memory then."""
    zero = np.float32(0)
    weights = {
        name: each if each.form is WeightForm.PLAIN else replace(each, values=np.broadcast_to(zero, each.values.shape))
        for name, each in base.weights.items()
    }
    return replace(base, weights=weights)
