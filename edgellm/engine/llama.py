"""The real engine: our llama.cpp, run in process through its low-level bindings. Only this module imports `llama_cpp`.

    engine = LlamaEngine(installed)
    model = engine.load(Path("model.gguf"))

The bindings come from the engine's own directory and load the library beside them. A library that does not report
the expected patch stamp, such as a stock one, is refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgellm.engine import end_tokens, kernels
from edgellm.engine.adapters import Adapter
from edgellm.engine.base import CONTEXT_PADDING, ModelInfo
from edgellm.engine.builds.installed import BUILD_COMMAND, InstalledEngine
from edgellm.engine.grammar.watch import GrammarWatch
from edgellm.engine.llama_context import LlamaContext, LlamaEmbedder, LlamaRanker, LlamaSequences
from edgellm.errors import DoesNotFit, EngineError, UnsupportedModel, UsageError
from edgellm.formats.quant_types import named_type
from edgellm.progress import Progress, Report, silent

if TYPE_CHECKING:
    from edgellm.engine.rpc.split import Split
    from edgellm.engine.rpc.spread import Spread
    from edgellm.models.local.packed import PackedFile, PackedFiles

GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR = 3, 4
# The engine's messages, at any level, when an allocation fails.
OUT_OF_MEMORY = re.compile(r"alloc|mmap failed|Cannot allocate memory|out of memory", re.IGNORECASE)
FLASH_ATTENTION_OFF, FLASH_ATTENTION_ON = 0, 1
NULL_TOKEN = -1
POOLING_RANK = "4"  # LLAMA_POOLING_TYPE_RANK, as metadata
OVERRIDE_INTEGER = 0  # LLAMA_KV_OVERRIDE_TYPE_INT


class LlamaEngine:
    """An installed engine, loaded into this process. It keeps the weights of large models in `packed` files, if any."""

    def __init__(self, installed: InstalledEngine, packed: PackedFiles | None = None) -> None:
        self.installed = installed
        self._packed = packed
        self.messages: deque[str] = deque(maxlen=200)
        self._transcript: list[str] | None = None
        self._c = _import_bindings(installed)
        self._log = self._c.llama_log_callback(self._on_log)
        self._listen()
        self._c.llama_backend_init()
        self.kernels = kernels.kernel_name(installed.libraries)
        _require_kernels(os.environ.get(kernels.VARIABLE), self.kernels)

    @property
    def stamp(self) -> str:
        """The patch stamp that the loaded library reports."""
        return _stamp_of(self._c)

    @property
    def bindings(self) -> Any:
        """The low-level bindings of the engine's library, for calls that need no model."""
        return self._c

    def _listen(self) -> None:
        """Receive the library's log; only the last engine to call this gets it. C keeps the callback's address."""
        self._c.llama_log_set(self._log, None)
        self._c.edgellm_listener = self._log

    @contextlib.contextmanager
    def transcript(self) -> Iterator[list[str]]:
        """Collect everything the engine logs inside the block, piece by piece; a line may come in several pieces."""
        pieces: list[str] = []
        self._listen()
        self._transcript = pieces
        try:
            yield pieces
        finally:
            self._transcript = None

    def last_error(self) -> str:
        """Return the engine's reason: the first message since the log was cleared, which later ones repeat."""
        return self.messages[0] if self.messages else "the engine gave no reason"

    def _on_log(self, level: int, text: bytes, _: object) -> None:
        if self._transcript is not None:
            self._transcript.append(text.decode(errors="replace"))
        if level in (GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR):
            self.messages.append(text.decode(errors="replace").strip())

    def load(
        self, path: Path, *, report: Report = silent, only_vocabulary: bool = False, split: Split | None = None
    ) -> LlamaModel:
        """Load a GGUF file; with `only_vocabulary`, the model can tokenize but not compute.

        With a `split`, workers hold the layers that it says.

        Raises:
            UnsupportedModel: the engine rejects the file; `why` is its own message.
            DoesNotFit: there is too little memory.
            WorkerLost, WorkerRefused: a worker cannot be used.
        """
        self._listen()
        self.messages.clear()

        failures: list[BaseException] = []

        def on_progress(fraction: float, _: object) -> bool:
            # An exception (Ctrl-C, say) cannot pass through C: loading is stopped, and it goes on from here.
            try:
                report(Progress("loading", round(fraction * 100), 100, "%"))
            except BaseException as error:
                failures.append(error)
            return not failures

        params = self._c.llama_model_default_params()
        params.vocab_only = only_vocabulary
        params.progress_callback = callback = self._c.llama_progress_callback(on_progress)
        params.kv_overrides = self._overrides(path)  # which keeps the array alive
        # What is packed for one machine is not what a part of it needs.
        kept = None if only_vocabulary or split else self._keep_packed(path)
        spread = _spread(split, self) if split else None
        try:
            placed = spread.place(params) if spread else None
        except BaseException:
            if spread:
                spread.close()
            raise
        pointer = self._c.llama_model_load_from_file(os.fsencode(path), params)
        del callback, placed  # kept alive until here
        failures += [spread.lost] if spread and spread.lost else []
        if failures and pointer:  # before the links end: it still speaks to the workers
            self._c.llama_model_free(pointer)
        if spread and (failures or not pointer):
            spread.close()
        if failures:
            raise failures[0]
        if not pointer:
            why = self.last_error()
            if OUT_OF_MEMORY.search(why):
                hint = "use a smaller model, or a smaller quantization of it"
                raise DoesNotFit(f"there is too little memory to load {path.name}", why=why, hint=hint)
            raise UnsupportedModel(f"the engine cannot load {path.name}", why=why, path=str(path))
        return LlamaModel(self, pointer, path, n_shared=kept.nbytes if kept else 0, spread=spread)

    def _keep_packed(self, path: Path) -> PackedFile | None:
        """Have the next load map the packed file of a model, or fill it; returns the file, if the model has one."""
        kept = self._packed.prepare(path) if self._packed else None
        kernels.keep_packed(self.installed.libraries, kept.path if kept else None, kept.key if kept else "")
        return kept

    def _overrides(self, path: Path) -> Any:
        """What to add to a file's metadata, as the array that ends with an empty key; None for nothing."""
        added = end_tokens.overrides(path)
        array = (self._c.llama_model_kv_override * (len(added) + 1))()
        for entry, (key, value) in zip(array, added.items(), strict=False):
            entry.tag, entry.key, entry.value.val_i64 = OVERRIDE_INTEGER, key.encode(), value
        return array if added else None

    def load_vocabulary(self, path: Path) -> Any:
        """Return the engine's pointer to a file's vocabulary, without weights; it lives until the process ends."""
        params = self._c.llama_model_default_params()
        params.vocab_only = True
        pointer = self._c.llama_model_load_from_file(os.fsencode(path), params)
        if not pointer:
            raise UnsupportedModel(f"the engine cannot load {path.name}", why=self.last_error(), path=str(path))
        return self._c.llama_model_get_vocab(pointer)


class LlamaModel:
    """The weights and the vocabulary of one file."""

    def __init__(
        self, engine: LlamaEngine, pointer: Any, path: Path, n_shared: int = 0, spread: Spread | None = None
    ) -> None:
        self._engine = engine
        self._spread = spread
        self._c = engine._c
        self._pointer = pointer
        self._vocab = self._c.llama_model_get_vocab(pointer)
        self._grammars = GrammarWatch(engine.installed.directory, path)
        self._adapters: list[tuple[Any, float]] = []
        self.info = self._describe(path, n_shared)

    def _describe(self, path: Path, n_shared: int) -> ModelInfo:
        c, pointer = self._c, self._pointer
        template = c.llama_model_chat_template(pointer, None)
        description = ctypes.create_string_buffer(128)
        c.llama_model_desc(pointer, description, len(description))
        pooling = self._metadata(f"{self._metadata('general.architecture')}.pooling_type")
        return ModelInfo(
            path=path,
            architecture=self._metadata("general.architecture"),
            # llama.cpp writes "llama 256M Q4_K - Medium": architecture, a guess at the size, file type.
            quant="".join(description.value.decode(errors="replace").split(maxsplit=2)[-1:]),
            n_params=c.llama_model_n_params(pointer),
            n_bytes=c.llama_model_size(pointer),
            n_ctx_train=c.llama_model_n_ctx_train(pointer),
            n_vocab=c.llama_vocab_n_tokens(self._vocab),
            chat_template=template.decode(errors="replace") if template else "",
            bos=self.token_text(c.llama_vocab_bos(self._vocab)),
            eos=self.token_text(c.llama_vocab_eos(self._vocab)),
            n_embd=c.llama_model_n_embd(pointer),
            pooled=pooling not in ("", "0"),
            ranks=pooling == POOLING_RANK,
            n_shared=n_shared,
            recurrent=c.llama_model_is_recurrent(pointer) or c.llama_model_is_hybrid(pointer),
        )

    def _metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        length = self._c.llama_model_meta_val_str(self._pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if length >= 0 else ""

    @property
    def split(self) -> Split | None:
        """Which layers are on which machine; None if all are here."""
        return self._spread.split if self._spread else None

    def token_text(self, token: int) -> str:
        """Return a token as the vocabulary writes it; see `base.Model`."""
        if token == NULL_TOKEN:
            return ""
        return bytes(self._c.llama_vocab_get_text(self._vocab, token)).decode(errors="replace")

    def tokenize(self, text: str, *, special: bool = False, bos: bool = True) -> list[int]:
        """Return the token ids of a text; see `base.Model`."""
        tokens = self._tokens(text, special, around=False)
        first = self._c.llama_vocab_bos(self._vocab)
        if bos and self._c.llama_vocab_get_add_bos(self._vocab) and first != NULL_TOKEN and tokens[:1] != [first]:
            tokens.insert(0, first)
        return tokens

    def tokenize_input(self, text: str) -> list[int]:
        """Return the token ids of a text to embed; see `base.Model`."""
        return self._tokens(text, special=False, around=True)

    def tokenize_pair(self, question: str, text: str) -> list[int]:
        """Return the token ids of a question and a text to rank; see `base.Model`.

        As llama-server's `format_prompt_rerank`: by the file's template for it, else as the vocabulary separates texts.
        """
        c, vocab = self._c, self._vocab
        if template := c.llama_model_chat_template(self._pointer, b"rerank"):
            whole = template.decode(errors="replace").replace("{query}", question).replace("{document}", text)
            return self._tokens(whole, special=True, around=False)
        begin, end, between = c.llama_vocab_bos(vocab), c.llama_vocab_eos(vocab), c.llama_vocab_sep(vocab)
        ends = [between if end == NULL_TOKEN else end] if c.llama_vocab_get_add_eos(vocab) else []
        first, second = (self._tokens(each, special=False, around=False) for each in (question, text))
        begins = [begin] if c.llama_vocab_get_add_bos(vocab) else []
        separators = [between] if c.llama_vocab_get_add_sep(vocab) else []
        pair = [*begins, *first, *ends, *separators, *second, *ends]
        return [token for token in pair if token != NULL_TOKEN]

    def _tokens(self, text: str, special: bool, around: bool) -> list[int]:
        """Tokenize a text; `around` adds the tokens that the vocabulary puts before and after a text."""
        data = text.encode(errors="replace")
        size = len(data) + 2  # never more tokens than bytes, plus BOS and EOS
        buffer = (self._c.llama_token * size)()
        count = self._c.llama_tokenize(self._vocab, data, len(data), buffer, size, around, special)
        if count < 0:
            raise EngineError("the engine cannot tokenize this text", why=f"it needs room for {-count} tokens")
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; see `base.Model`."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count: int = self._c.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer."""
        return bool(self._c.llama_vocab_is_eog(self._vocab, token))

    def open_context(
        self,
        *,
        n_ctx: int,
        n_batch: int,
        n_threads: int,
        n_threads_batch: int | None = None,
        type_k: str = "F16",
        type_v: str = "F16",
        flash_attention: bool | None = None,
    ) -> LlamaContext:
        """Return a new, empty context of `n_ctx` tokens, rounded up by the engine; see `base.Model`.

        Raises:
            DoesNotFit: the engine could not allocate the cache or its buffers.
            UnsupportedModel: these cache types do not fit the model's heads.
        """
        params = self._params(n_ctx, n_batch, n_threads, 1, type_k, type_v, n_threads_batch, flash_attention)
        pointer = self._new_context(params)
        context = LlamaContext(self._c, pointer, n_ctx, self.info.path.name, self._grammars)
        context.spread = self._spread
        return context

    def open_sequences(
        self,
        *,
        n_seq: int,
        n_ctx: int,
        n_batch: int,
        n_threads: int,
        n_threads_batch: int | None = None,
        type_k: str = "F16",
        type_v: str = "F16",
        flash_attention: bool | None = None,
        shared: bool = False,
    ) -> LlamaSequences:
        """Return new, empty sequences of `n_ctx` tokens each, rounded up by the engine; see `base.Model`.

        Raises:
            DoesNotFit: the engine could not allocate the caches or its buffers.
        """
        # The engine divides its context among the sequences and rounds each share down.
        padded = -(-n_ctx // CONTEXT_PADDING) * CONTEXT_PADDING
        total = padded if shared else n_seq * padded
        n_batch = max(n_batch, n_seq)
        params = self._params(total, n_batch, n_threads, n_seq, type_k, type_v, n_threads_batch, flash_attention)
        params.kv_unified = shared
        pointer = self._new_context(params)
        sequences = LlamaSequences(self._c, pointer, n_seq, n_ctx, self.info.path.name, self._grammars)
        sequences.spread = self._spread
        return sequences

    def open_embedder(self, *, n_seq: int, n_ctx: int, n_threads: int) -> LlamaEmbedder:
        """Return an embedder for texts of up to `n_ctx` tokens together; see `base.Embedder`.

        Raises:
            UnsupportedModel: the file does not say how to pool its token vectors.
            DoesNotFit: the engine could not allocate its buffers.
        """
        if not self.info.pooled or self.info.ranks:
            why = "it ranks texts" if self.info.ranks else "the file does not say how to pool its token vectors"
            raise UnsupportedModel("this is not an embedding model", why=why)
        n_seq = min(n_seq, n_ctx)  # the engine aborts the process for more
        pointer = self._pooled_context(n_ctx, n_threads, n_seq)
        return LlamaEmbedder(self._c, pointer, n_seq, n_ctx, self.info.path.name, self.info.n_embd)

    def open_ranker(self, *, n_ctx: int, n_threads: int) -> LlamaRanker:
        """Return a ranker for pairs of up to `n_ctx` tokens; see `base.Ranker`.

        Raises:
            UnsupportedModel: the file does not say that the model ranks.
            DoesNotFit: the engine could not allocate its buffers.
        """
        if not self.info.ranks:
            raise UnsupportedModel("this is not a reranker", why="the file's pooling_type is not rank (4)")
        pointer = self._pooled_context(n_ctx, n_threads, 1)
        return LlamaRanker(self._c, pointer, 1, n_ctx, self.info.path.name)

    def use_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Load adapters for contexts that are opened afterwards; see `base.Model`. They live as long as the model."""
        for adapter in adapters:
            self._engine.messages.clear()
            pointer = self._c.llama_adapter_lora_init(self._pointer, os.fsencode(adapter.path))
            if not pointer:
                why = self._engine.last_error()
                raise UnsupportedModel(f"the engine cannot load the adapter {adapter.path.name}", why=why)
            self._adapters.append((pointer, adapter.scale))

    def _pooled_context(self, n_ctx: int, n_threads: int, n_seq: int) -> Any:
        params = self._params(n_ctx, n_ctx, n_threads, n_seq, "F16", "F16")
        params.embeddings = True
        # All texts share one cache: together they are never longer than one text may be.
        params.kv_unified = True
        return self._new_context(params)

    def _params(
        self,
        n_ctx: int,
        n_batch: int,
        n_threads: int,
        n_seq: int,
        type_k: str,
        type_v: str,
        n_threads_batch: int | None = None,
        flash_attention: bool | None = None,
    ) -> Any:
        params = self._c.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = n_batch
        params.n_threads, params.n_threads_batch = n_threads, n_threads_batch or n_threads
        params.n_seq_max = n_seq
        # Each sequence has its own cache, so that its logits are bit-identical whatever the other sequences are.
        params.kv_unified = False
        params.type_k, params.type_v = named_type(type_k).id, named_type(type_v).id
        if flash_attention is not None:
            params.flash_attn_type = FLASH_ATTENTION_ON if flash_attention else FLASH_ATTENTION_OFF
        if named_type(type_v).is_quantized:
            # Without flash attention the values are stored transposed, which quantized blocks do not allow.
            params.flash_attn_type = FLASH_ATTENTION_ON
        if "F32" in (type_k, type_v):
            # Flash attention rounds a float32 cache to float16.
            params.flash_attn_type = FLASH_ATTENTION_OFF
        params.no_perf = True
        # Workers compute what they hold; no weights travel for the sake of a long prompt.
        params.op_offload = self._spread is None
        return params

    def _new_context(self, params: Any) -> Any:
        self._engine.messages.clear()
        pointer = self._c.llama_init_from_model(self._pointer, params)
        if self._spread and self._spread.lost:
            self._c.llama_free(pointer)
            raise self._spread.lost
        if not pointer:
            why, hint, n_ctx = self._engine.last_error(), "use a smaller --ctx-size", int(params.n_ctx)
            if "cache type" in why or "lash" in why:
                raise UnsupportedModel("the model cannot use that cache type", why=why, hint="--kv f16")
            raise DoesNotFit(f"the engine cannot make a context of {n_ctx} tokens", why=why, hint=hint, n_ctx=n_ctx)
        if n := len(self._adapters):
            adapters = (self._c.llama_adapter_lora_p_ctypes * n)(*(adapter for adapter, _ in self._adapters))
            scales = (ctypes.c_float * n)(*(scale for _, scale in self._adapters))
            if self._c.llama_set_adapters_lora(pointer, adapters, n, scales):
                self._c.llama_free(pointer)
                raise EngineError("the engine cannot use the adapters", why=self._engine.last_error())
        return pointer

    def close(self) -> None:
        """Free the model; its contexts must be closed first."""
        self._grammars.close()
        if self._pointer:
            self._c.llama_model_free(self._pointer)
            self._pointer = None
        if self._spread is not None:
            self._spread.close()


def _spread(split: Split, engine: LlamaEngine) -> Spread:
    """Connect to the workers of a split."""
    from edgellm.engine.rpc.spread import Spread

    return Spread(split, engine.stamp, engine.installed.libraries)


def _import_bindings(installed: InstalledEngine) -> Any:
    """Import the low-level module `llama_cpp.llama_cpp` from the engine's directory, with the engine's library.

    The package's own __init__ would import its high-level API and a disk cache, which we do not use. An empty
    package module takes its place, so that only the low-level module is loaded.
    """
    loaded = sys.modules.get("llama_cpp.llama_cpp")
    # Otherwise an abort in the engine would attach a debugger to this process, if one is installed.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    if loaded is None:
        package = ModuleType("llama_cpp")
        package.__path__ = [str(installed.bindings / "llama_cpp")]
        sys.modules["llama_cpp"] = package
        # OpenMP's idle threads spin for milliseconds between computations, on cores that others may need.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        with _environment("LLAMA_CPP_LIB_PATH", str(installed.libraries)):
            try:
                loaded = importlib.import_module("llama_cpp.llama_cpp")
            except (OSError, ImportError, RuntimeError, AttributeError) as error:
                del sys.modules["llama_cpp"]
                hint = f"{BUILD_COMMAND} --clean"
                raise EngineError("the engine's library does not load", why=str(error), hint=hint) from error
    stamp = _stamp_of(loaded)
    if stamp != installed.record.stamp:
        raise EngineError(
            "the llama.cpp library in this process is not edgellm's",
            why=f"its patch stamp is {stamp or 'missing, as in a stock build'}, expected {installed.record.stamp}",
            hint=f"{BUILD_COMMAND} --clean",
        )
    return loaded


def _require_kernels(asked: str | None, used: str) -> None:
    """Raise if the requested level of the kernels is not the one in use."""
    if asked and asked != used:
        raise UsageError(
            f"{kernels.VARIABLE}={asked[:40]}: this machine has no such kernels",
            why=f"the best ones here are {used}",
            hint=f"unset {kernels.VARIABLE}, or set it to stock",
        )


def _stamp_of(bindings: Any) -> str:
    try:
        function = bindings._lib.edgellm_stamp
    except AttributeError:
        return ""
    function.restype = ctypes.c_char_p
    return (function() or b"").decode(errors="replace")


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
