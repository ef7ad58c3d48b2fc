"""Every way edgellm can fail, as one tree.

An error says what happened, why, and what to type next; it carries a stable `code` for scripts, the facts
behind the sentence, and the exit code of the process. Anything that is not an `EdgellmError` is a bug and
shows its traceback.

    raise ChecksumMismatch("model.gguf is corrupt", why="sha256 is ab12, expected cd34", hint="edgellm pull smollm2")
"""

from __future__ import annotations

from typing import ClassVar


class EdgellmError(Exception):
    """Something the user can act on.

    Args:
        what: one clause without a trailing full stop, naming the file or model concerned.
        why: the cause, as far as it is known.
        hint: a command or an action that helps, shown after "try:".
        facts: values a script may want (paths, counts, hashes); they appear under "facts" in `--json`.
    """

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", hint: str = "", **facts: str | int | float | None) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.facts = facts


class UsageError(EdgellmError):
    """The command line asks for something that cannot be."""

    code = "usage"
    exit_code = 2


class PromptTooLong(UsageError):
    """The prompt and the context do not go together; nothing is ever truncated silently."""

    code = "prompt-too-long"


class ContextTooLarge(UsageError):
    """A larger context was asked for than the model was trained with."""

    code = "context-too-large"


class LossyTranscode(UsageError):
    """A tensor type cannot hold the weights of another exactly; nothing is ever rounded silently."""

    code = "lossy-transcode"


class ModelNotFound(EdgellmError):
    """No recipe, file or installed model has that name."""

    code = "model-not-found"
    exit_code = 3


class ChatNotFound(EdgellmError):
    """No saved chat has that id."""

    code = "chat-not-found"


class NetworkError(EdgellmError):
    """The network, or what is at its other end, did not deliver."""

    code = "network"
    exit_code = 4


class AccessDenied(NetworkError):
    """The Hub knows the model and does not give it to everybody."""

    code = "access-denied"


class DoesNotFit(EdgellmError):
    """Too little memory for the model, its context and its working buffers."""

    code = "does-not-fit"
    exit_code = 5


class CorruptFile(EdgellmError):
    """A file is damaged or is not what its name says."""

    code = "corrupt-file"
    exit_code = 6


class ChecksumMismatch(CorruptFile):
    """A file's sha256 is not the expected one."""

    code = "checksum-mismatch"


class UnsupportedModel(CorruptFile):
    """A well-formed file that the engine cannot run: unknown architecture or tensor type."""

    code = "unsupported-model"


class EngineError(EdgellmError):
    """The engine failed."""

    code = "engine-failed"
    exit_code = 7


class EngineMissing(EngineError):
    """No engine is built for this version of edgellm and this CPU."""

    code = "engine-missing"


class ToolMissing(EngineError):
    """A program that the build needs is not installed."""

    code = "tool-missing"


class PatchFailed(EngineError):
    """A patch does not apply to the upstream tree."""

    code = "patch-failed"


class BuildFailed(EngineError):
    """The compiler, or a step around it, failed."""

    code = "build-failed"


class FileAccessError(EdgellmError):
    """The file system refuses: no permission, read-only, or a file where a directory should be."""

    code = "file-access"


class DiskFull(EdgellmError):
    """The file system has no room left."""

    code = "disk-full"


class AnswerMismatch(EdgellmError):
    """An answer does not have the form that was asked for."""

    code = "answer-mismatch"


class BadRequest(EdgellmError):
    """A request that cannot be honoured as it is; it fails alone, the others go on."""

    code = "bad-request"
