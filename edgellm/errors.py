"""All errors of edgellm, as one class tree.

An error says what happened, why, and what to type next. It carries a stable `code` for scripts, the facts
behind the message, and the exit code of the process. Any other exception is a bug and shows its traceback.

    raise ChecksumMismatch("model.gguf is corrupt", why="sha256 is ab12, expected cd34", hint="edgellm pull smollm2")
"""

from __future__ import annotations

from typing import ClassVar

from edgellm.exit_codes import ExitCode


class EdgellmError(Exception):
    """An error that the user can act on.

    Args:
        what: one clause without a trailing full stop, naming the file or model concerned.
        why: the cause, if it is known.
        hint: a command or an action that helps, shown after "try:".
        facts: values a script may want (paths, counts, hashes); they appear under "facts" in `--json`.
    """

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, what: str, *, why: str = "", hint: str = "", **facts: str | int | float | None) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.facts = facts


class UsageError(EdgellmError):
    """The command line asks for something impossible."""

    code = "usage"
    exit_code = ExitCode.USAGE


class ConfigInvalid(UsageError):
    """The config file is no TOML, or a key or a value in it is wrong."""

    code = "config-invalid"


class NotText(UsageError):
    """A text is in an encoding that edgellm cannot tell, or is no text at all."""

    code = "not-text"


class PromptTooLong(UsageError):
    """The prompt does not fit in the context; edgellm never truncates silently."""

    code = "prompt-too-long"


class ContextTooLarge(UsageError):
    """The requested context is larger than the one the model was trained with."""

    code = "context-too-large"


class LossyTranscode(UsageError):
    """A tensor type cannot hold the weights of another exactly; edgellm never rounds silently."""

    code = "lossy-transcode"


class ModelNotFound(EdgellmError):
    """No recipe, file or installed model has this name."""

    code = "model-not-found"
    exit_code = ExitCode.NO_MODEL


class ChatNotFound(EdgellmError):
    """No saved chat has this id."""

    code = "chat-not-found"


class CollectionNotFound(EdgellmError):
    """No collection of documents has this name."""

    code = "documents-not-found"


class AnswerNotFound(EdgellmError):
    """The answer cache has no such entry."""

    code = "answer-not-found"


class ChatChanged(EdgellmError):
    """Another program changed a saved chat meanwhile; nothing was overwritten."""

    code = "chat-changed"


class ContextFixed(UsageError):
    """A server has given a model its context, which a client cannot change to `n_ctx`."""

    code = "context-fixed"

    def __init__(self, what: str, *, n_ctx: int, hint: str) -> None:
        super().__init__(what, hint=hint)
        self.n_ctx = n_ctx


class NetworkError(EdgellmError):
    """The network or the remote server failed."""

    code = "network"
    exit_code = ExitCode.NETWORK


class NotServed(NetworkError):
    """A server answers the rows of a batch no more, or cannot answer one that a model loaded here could."""

    code = "not-served"


class WorkerLost(NetworkError):
    """A worker that holds layers of a model is gone, or cannot be reached."""

    code = "worker-lost"


class WorkerRefused(NetworkError):
    """A worker runs another version or is in use, or what listens there is none."""

    code = "worker-refused"


class AccessDenied(NetworkError):
    """The Hub has the model, but access to it is restricted."""

    code = "access-denied"


class DoesNotFit(EdgellmError):
    """There is too little memory for the model, its context and its buffers."""

    code = "does-not-fit"
    exit_code = ExitCode.DOES_NOT_FIT


class CorruptFile(EdgellmError):
    """A file is damaged, or is not what its name says."""

    code = "corrupt-file"
    exit_code = ExitCode.CORRUPT


class ChecksumMismatch(CorruptFile):
    """A file's sha256 is not the expected one."""

    code = "checksum-mismatch"


class UnsupportedModel(CorruptFile):
    """The engine cannot run a well-formed file: its architecture or a tensor type is not supported."""

    code = "unsupported-model"


class EngineError(EdgellmError):
    """The engine failed, or printed something unexpected."""

    code = "engine-failed"
    exit_code = ExitCode.ENGINE


class EngineMissing(EngineError):
    """No engine is built for this version of edgellm and this CPU."""

    code = "engine-missing"


class NotFinite(EngineError):
    """A model computed NaN or infinity in place of a result: its file is damaged, or its weights overflow."""

    code = "not-finite"


class ToolMissing(EngineError):
    """A program that the build needs is not installed."""

    code = "tool-missing"


class PatchFailed(EngineError):
    """A patch does not apply to the upstream tree."""

    code = "patch-failed"


class BuildFailed(EngineError):
    """The compiler or another build step failed."""

    code = "build-failed"


class SandboxOpen(EdgellmError):
    """The system cannot close the sandbox, so code of a model is not run."""

    code = "sandbox-open"


class FileAccessError(EdgellmError):
    """The file system refuses access: no permission, read-only, or a file where a directory should be."""

    code = "file-access"


class DiskFull(EdgellmError):
    """The file system has no space left."""

    code = "disk-full"


class AnswerMismatch(EdgellmError):
    """An answer does not have the requested structure."""

    code = "answer-mismatch"


class BadRequest(EdgellmError):
    """A request of a batch is invalid; it fails alone, and the others continue."""

    code = "bad-request"
