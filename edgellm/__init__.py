"""edgellm: small, ternary and 4-bit language models on ordinary CPUs. Try `edgellm --help`, or in Python:

    import edgellm

    with edgellm.open("smollm2") as model:
        print(model.ask("What is the capital of France?").text)

What is exported is imported when it is first used, so `import edgellm` costs nothing.
"""

from edgellm.version import __version__ as __version__

# As in `typing`, which would take longer to import than all of this: type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:  # what type checkers see; the same names as in _EXPORTS
    from edgellm import errors as errors
    from edgellm.api import OpenModel as OpenModel
    from edgellm.api import TokenScores as TokenScores
    from edgellm.api import models as models
    from edgellm.api import open as open  # noqa: A004
    from edgellm.api import pull as pull
    from edgellm.batch.rows import RowAnswer as RowAnswer
    from edgellm.benchmarks import benchmark as benchmark
    from edgellm.chats.chat import Chat as Chat
    from edgellm.documents.answers.question import DocumentAnswer as DocumentAnswer
    from edgellm.engine.sampling import Sampling as Sampling
    from edgellm.errors import EdgellmError as EdgellmError
    from edgellm.evaluation.evaluation import Evaluation as Evaluation
    from edgellm.evaluation.harness.result import TaskResult as TaskResult
    from edgellm.evaluations import evaluate as evaluate
    from edgellm.library import Documents as Documents
    from edgellm.library import docs as docs
    from edgellm.models.local.inventory import ListedModel as ListedModel
    from edgellm.models.local.store import InstalledModel as InstalledModel
    from edgellm.progress import Progress as Progress
    from edgellm.run.answer import Answer as Answer
    from edgellm.run.answer import AnswerStream as AnswerStream
    from edgellm.run.generation import Limits as Limits
    from edgellm.run.telemetry import Stats as Stats
    from edgellm.tools.tool import Risk as Risk
    from edgellm.tools.tool import Tool as Tool
    from edgellm.tools.tool import ToolResult as ToolResult


# Where each name comes from: a module, and the attribute of it; none for the module itself.
_EXPORTS = {
    "Answer": "edgellm.run.answer:Answer",
    "AnswerStream": "edgellm.run.answer:AnswerStream",
    "Chat": "edgellm.chats.chat:Chat",
    "DocumentAnswer": "edgellm.documents.answers.question:DocumentAnswer",
    "Documents": "edgellm.library:Documents",
    "EdgellmError": "edgellm.errors:EdgellmError",
    "Evaluation": "edgellm.evaluation.evaluation:Evaluation",
    "InstalledModel": "edgellm.models.local.store:InstalledModel",
    "Limits": "edgellm.run.generation:Limits",
    "ListedModel": "edgellm.models.local.inventory:ListedModel",
    "OpenModel": "edgellm.api:OpenModel",
    "Progress": "edgellm.progress:Progress",
    "RowAnswer": "edgellm.batch.rows:RowAnswer",
    "Risk": "edgellm.tools.tool:Risk",
    "Sampling": "edgellm.engine.sampling:Sampling",
    "Stats": "edgellm.run.telemetry:Stats",
    "TaskResult": "edgellm.evaluation.harness.result:TaskResult",
    "TokenScores": "edgellm.api:TokenScores",
    "Tool": "edgellm.tools.tool:Tool",
    "ToolResult": "edgellm.tools.tool:ToolResult",
    "benchmark": "edgellm.benchmarks:benchmark",
    "docs": "edgellm.library:docs",
    "errors": "edgellm.errors",
    "evaluate": "edgellm.evaluations:evaluate",
    "models": "edgellm.api:models",
    "open": "edgellm.api:open",
    "pull": "edgellm.api:pull",
}
__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'edgellm' has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _EXPORTS[name].partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
