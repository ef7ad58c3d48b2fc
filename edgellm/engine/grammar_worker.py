"""The process that `grammar_watch` starts: it opens grammars over a model's vocabulary and steps through them.

Each line of its input is a request, a JSON object; each answer is a line {"bytes": N} with so many bytes behind it, or
{"error": ..., "why": ...}:

    {"grammar": 0, "open": "root ::= ..."}     {"grammar": 0, "permits": 17}     {"grammar": 0, "accept": 17}
    {"grammar": 0, "permitted": true}          {"grammar": 0, "close": true}

It ends with its input, and the system ends it when a request takes too much CPU time or memory.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

from edgellm.engine.grammar_watch import SPARE_BYTES
from edgellm.engine.installed import load
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.llama_grammar import LlamaGrammar
from edgellm.errors import UsageError


def answer(request: dict[str, Any], grammars: dict[int, LlamaGrammar], c: Any, vocab: Any) -> bytes:
    """What a request brings."""
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


def serve(requests: BinaryIO, answers: BinaryIO, c: Any, vocab: Any, step_seconds: float) -> None:
    """Answer until there are no more requests; each may take so much CPU time."""
    grammars: dict[int, LlamaGrammar] = {}
    for line in requests:
        signal.setitimer(signal.ITIMER_PROF, step_seconds)
        try:
            data = answer(json.loads(line), grammars, c, vocab)
            head: dict[str, Any] = {"bytes": len(data)}
        except UsageError as error:
            data, head = b"", {"bytes": 0, "error": error.what, "why": error.why}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(head).encode() + b"\n" + data)
        answers.flush()


def main() -> None:
    """Answer on what is standard output now; whatever the engine itself prints goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    directory, model = Path(sys.argv[1]), Path(sys.argv[2])
    installed = load(directory)
    if installed is None:
        sys.exit(f"there is no engine in {directory}")
    engine = LlamaEngine(installed)
    vocab = engine.load_vocabulary(model)
    if sys.platform != "darwin":  # where it is not kept to
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # The system's own way to end a process, which works within a call into C as well.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, answers, engine.bindings, vocab, float(sys.argv[3]))


if __name__ == "__main__":
    main()
