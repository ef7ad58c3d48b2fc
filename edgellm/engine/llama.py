"""The real engine: our llama.cpp, in process, through the low-level bindings. The only importer of `llama_cpp`.

    engine = LlamaEngine(installed.require(settings, stack))
    model = engine.load(Path("model.gguf"))

The bindings come from the engine's own directory and load the library beside them; a library that does not tell
the expected patch stamp (a stock one, say) is refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from edgellm.engine import kernels
from edgellm.engine.base import CONTEXT_PADDING, ModelInfo
from edgellm.engine.installed import BUILD_COMMAND, InstalledEngine
from edgellm.engine.llama_context import LlamaContext, LlamaEmbedder, LlamaSequences
from edgellm.errors import DoesNotFit, EngineError, UnsupportedModel, UsageError
from edgellm.formats.quant_types import named_type
from edgellm.progress import Progress, Report, silent

GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR = 3, 4
# What the engine says when the system refuses it memory, at any level.
OUT_OF_MEMORY = re.compile(r"alloc|mmap failed|Cannot allocate memory|out of memory", re.IGNORECASE)
FLASH_ATTENTION_ON = 1
NULL_TOKEN = -1


class LlamaEngine:
    """The engine of one directory, loaded into this process."""

    def __init__(self, installed: InstalledEngine) -> None:
        self.installed = installed
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
        """The patch stamp that the loaded library itself tells."""
        return _stamp_of(self._c)

    @property
    def bindings(self) -> Any:
        """The low-level module over the engine's library, for calls that belong to no model."""
        return self._c

    def _listen(self) -> None:
        """Take the library's messages, which go to the engine that asked last, and outlive it: C keeps the address."""
        self._c.llama_log_set(self._log, None)
        self._c.edgellm_listener = self._log

    @contextlib.contextmanager
    def transcript(self) -> Iterator[list[str]]:
        """Everything that the engine says in between, in its own pieces; a line may be several of them."""
        pieces: list[str] = []
        self._listen()
        self._transcript = pieces
        try:
            yield pieces
        finally:
            self._transcript = None

    def last_error(self) -> str:
        """The engine's own reason: the first message since the log was cleared, later ones repeat it."""
        return self.messages[0] if self.messages else "the engine gave no reason"

    def _on_log(self, level: int, text: bytes, _: object) -> None:
        if self._transcript is not None:
            self._transcript.append(text.decode(errors="replace"))
        if level in (GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR):
            self.messages.append(text.decode(errors="replace").strip())

    def load(self, path: Path, *, report: Report = silent, only_vocabulary: bool = False) -> LlamaModel:
        """Load a GGUF file; `only_vocabulary` is for a model that cuts texts into tokens and computes nothing.

        Raises:
            UnsupportedModel: the engine refuses the file; its own words are in `why`.
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
        pointer = self._c.llama_model_load_from_file(os.fsencode(path), params)
        del callback  # kept alive until here
        if failures:
            raise failures[0]
        if not pointer:
            why = self.last_error()
            if OUT_OF_MEMORY.search(why):
                hint = "a smaller model, or another quantization of it"
                raise DoesNotFit(f"there is too little memory to load {path.name}", why=why, hint=hint)
            raise UnsupportedModel(f"the engine cannot load {path.name}", why=why, path=str(path))
        return LlamaModel(self, pointer, path)


class LlamaModel:
    """Weights and vocabulary of one file."""

    def __init__(self, engine: LlamaEngine, pointer: Any, path: Path) -> None:
        self._engine = engine
        self._c = engine._c
        self._pointer = pointer
        self._vocab = self._c.llama_model_get_vocab(pointer)
        self.info = self._describe(path)

    def _describe(self, path: Path) -> ModelInfo:
        c, pointer = self._c, self._pointer
        template = c.llama_model_chat_template(pointer, None)
        description = ctypes.create_string_buffer(128)
        c.llama_model_desc(pointer, description, len(description))
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
            pooled=self._metadata(f"{self._metadata('general.architecture')}.pooling_type") not in ("", "0"),
        )

    def _metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        length = self._c.llama_model_meta_val_str(self._pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if length >= 0 else ""

    def token_text(self, token: int) -> str:
        """What the vocabulary calls a token; see `base.Model`."""
        if token == NULL_TOKEN:
            return ""
        return bytes(self._c.llama_vocab_get_text(self._vocab, token)).decode(errors="replace")

    def tokenize(self, text: str, *, special: bool = False, bos: bool = True) -> list[int]:
        """Token ids of a text; see `base.Model`."""
        tokens = self._tokens(text, special, around=False)
        first = self._c.llama_vocab_bos(self._vocab)
        if bos and self._c.llama_vocab_get_add_bos(self._vocab) and first != NULL_TOKEN and tokens[:1] != [first]:
            tokens.insert(0, first)
        return tokens

    def tokenize_input(self, text: str) -> list[int]:
        """Token ids of a text to embed; see `base.Model`."""
        return self._tokens(text, special=False, around=True)

    def _tokens(self, text: str, special: bool, around: bool) -> list[int]:
        """`around`: with the tokens that the vocabulary puts before and after a text."""
        data = text.encode(errors="replace")
        size = len(data) + 2  # never more tokens than bytes, plus BOS and EOS
        buffer = (self._c.llama_token * size)()
        count = self._c.llama_tokenize(self._vocab, data, len(data), buffer, size, around, special)
        if count < 0:
            raise EngineError("the engine cannot tokenize this text", why=f"it wants room for {-count} tokens")
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of a token; see `base.Model`."""
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
        self, *, n_ctx: int, n_batch: int, n_threads: int, type_k: str = "F16", type_v: str = "F16"
    ) -> LlamaContext:
        """A new, empty context of `n_ctx` tokens (rounded up by the engine to what its cache wants).

        Raises:
            DoesNotFit: the engine could not allocate the cache or its buffers.
            UnsupportedModel: the model's heads cannot be kept in those types.
        """
        pointer = self._new_context(self._params(n_ctx, n_batch, n_threads, 1, type_k, type_v))
        return LlamaContext(self._c, pointer, n_ctx)

    def open_sequences(
        self, *, n_seq: int, n_ctx: int, n_batch: int, n_threads: int, type_k: str = "F16", type_v: str = "F16"
    ) -> LlamaSequences:
        """New, empty sequences of `n_ctx` tokens each (rounded up by the engine); see `base.Sequences`.

        Raises:
            DoesNotFit: the engine could not allocate the caches or its buffers.
        """
        # The engine divides its context among the sequences, and rounds each one's part down.
        padded = -(-n_ctx // CONTEXT_PADDING) * CONTEXT_PADDING
        params = self._params(n_seq * padded, max(n_batch, n_seq), n_threads, n_seq, type_k, type_v)
        return LlamaSequences(self._c, self._new_context(params), n_seq, n_ctx)

    def open_embedder(self, *, n_seq: int, n_ctx: int, n_threads: int) -> LlamaEmbedder:
        """What turns texts of up to `n_ctx` tokens into vectors; see `base.Embedder`.

        Raises:
            UnsupportedModel: the file does not say how the vectors of its tokens become one.
            DoesNotFit: the engine could not allocate its buffers.
        """
        if not self.info.pooled:
            why = "the file does not say how the vectors of its tokens become one"
            raise UnsupportedModel("this is not an embedding model", why=why)
        n_seq = min(n_seq, n_ctx)  # for more the engine ends the process
        params = self._params(n_ctx, n_ctx, n_threads, n_seq, "F16", "F16")
        params.embeddings = True
        # One cache for all: together they are never longer than one may be.
        params.kv_unified = True
        return LlamaEmbedder(self._c, self._new_context(params), n_seq, n_ctx, self.info.n_embd)

    def _params(self, n_ctx: int, n_batch: int, n_threads: int, n_seq: int, type_k: str, type_v: str) -> Any:
        params = self._c.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = n_batch
        params.n_threads = params.n_threads_batch = n_threads
        params.n_seq_max = n_seq
        # A cache for each sequence, so that each gets the same logits, to the last bit, whatever its neighbours are.
        params.kv_unified = False
        params.type_k, params.type_v = named_type(type_k).id, named_type(type_v).id
        if named_type(type_v).is_quantized:
            # Without it the values would be kept transposed, and blocks cannot be.
            params.flash_attn_type = FLASH_ATTENTION_ON
        params.no_perf = True
        return params

    def _new_context(self, params: Any) -> Any:
        self._engine.messages.clear()
        pointer = self._c.llama_init_from_model(self._pointer, params)
        if not pointer:
            why, hint, n_ctx = self._engine.last_error(), "a smaller --ctx-size", int(params.n_ctx)
            if "cache type" in why or "lash" in why:
                raise UnsupportedModel("the model cannot keep its cache in that type", why=why, hint="--kv f16")
            raise DoesNotFit(f"the engine cannot make a context of {n_ctx} tokens", why=why, hint=hint, n_ctx=n_ctx)
        return pointer

    def close(self) -> None:
        """Free the model."""
        if self._pointer:
            self._c.llama_model_free(self._pointer)
            self._pointer = None


def _import_bindings(installed: InstalledEngine) -> Any:
    """The low-level module `llama_cpp.llama_cpp`, from the engine's directory, over the engine's library.

    Only that module is loaded: the package's own __init__ pulls in its high-level API and a disk cache that
    we do not use. Hence the bare package module put in its place.
    """
    loaded = sys.modules.get("llama_cpp.llama_cpp")
    # Or an abort of the engine would start a debugger on this process, if one is installed.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    if loaded is None:
        package = ModuleType("llama_cpp")
        package.__path__ = [str(installed.bindings / "llama_cpp")]
        sys.modules["llama_cpp"] = package
        # OpenMP's idle threads spin for milliseconds between two computations, on cores that others may need.
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
    """Nobody who asks for one level of the kernels gets another one unnoticed."""
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
