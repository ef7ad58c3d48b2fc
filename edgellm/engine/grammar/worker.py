"""The process that `grammar.watch` starts: it opens grammars over a model's vocabulary and steps through them.

Each line of its input is a request, a JSON object; each answer is a line {"bytes": N} followed by N bytes, or
{"error": ...}:

    {"grammar": 0, "open": "root ::= ..."}     {"grammar": 0, "permits": 17}     {"grammar": 0, "accept": 17}
    {"grammar": 0, "permitted": true}          {"grammar": 0, "close": true}

It ends with its input, and the system kills it when a request takes too much CPU time or memory.
"""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgellm.engine.builds.installed import load
from edgellm.engine.grammar.watch import SPARE_BYTES
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.llama_grammar import LlamaGrammar
from edgellm.errors import UsageError
from edgellm.machine.child import describe, open_answers, requests


def answer(request: dict[str, Any], grammars: dict[int, LlamaGrammar], c: Any, vocab: Any) -> bytes:
    """The bytes that answer a request; UsageError for a grammar that cannot be parsed."""
    number = request["grammar"]
    if "open" in request:
        grammars[number] = LlamaGrammar(c, vocab, request["open"])
    elif "permits" in request:
        return b"\1" if grammars[number].permits(request["permits"]) else b"\0"
    elif "permitted" in request:
        return grammars[number].permitted().tobytes()
    elif "accept" in request:
        grammars[number].accept(request["accept"])
    elif "close" in request:
        grammars.pop(number).close()
    return b""


def serve(
    questions: Iterable[dict[str, Any]], say: Callable[..., None], c: Any, vocab: Any, step_seconds: float
) -> None:
    """Answer until there are no more requests; each may take so many seconds of CPU time."""
    grammars: dict[int, LlamaGrammar] = {}
    for request in questions:
        signal.setitimer(signal.ITIMER_PROF, step_seconds)
        try:
            data = answer(request, grammars, c, vocab)
        except UsageError as error:
            say({"error": describe(error)})
        else:
            say({"bytes": len(data)}, data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Load the vocabulary, set the limits, and serve."""
    say = open_answers()
    directory, model = Path(sys.argv[1]), Path(sys.argv[2])
    installed = load(directory)
    if installed is None:
        sys.exit(f"there is no engine in {directory}")
    engine = LlamaEngine(installed)
    vocab = engine.load_vocabulary(model)
    if sys.platform != "darwin":  # which ignores this limit
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        limit = pages * resource.getpagesize() + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # The default action kills the process even within a call into C.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(requests(), say, engine.bindings, vocab, float(sys.argv[3]))


if __name__ == "__main__":
    main()
