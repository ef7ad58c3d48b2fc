"""Whether a message of a chat asks documents anything, and how it is answered then; imported by every chat.

if not is_greeting("thank you!"):
    options = document_options(options)
"""

from __future__ import annotations

import re
from dataclasses import replace

from edgellm.errors import UsageError
from edgellm.run.answer_options import AnswerOptions

# Tokens of an answer: a small CPU reads some hundreds a second, and writes far fewer.
MOST_ANSWER = 96
_GREETING = re.compile(
    r"(?:hi|hello|hey|good (?:morning|afternoon|evening|night|day)|thanks|thank you|cheers|ok|okay|great|(?:good)?bye"
    r"|你好|您好|谢谢|多谢|好的|再见)(?: (?:there|again|all|everyone|a lot|very much|so much))?[\s.!…。！]*",
    re.IGNORECASE,
)


def is_greeting(text: str) -> bool:
    """Whether a message asks nothing: documents have no answer to it, and the model may."""
    return bool(_GREETING.fullmatch(text.strip()))


def document_options(options: AnswerOptions) -> AnswerOptions:
    """How to answer from documents, where nothing else was asked for: without chance, and briefly.

    Raises:
        UsageError: the answer must have a form, which cannot be compared with sentences.
    """
    if options.structure is not None:
        what = "an answer from documents is plain text"
        raise UsageError(what, why="its sentences are compared with those of the documents", hint="no --format")
    most = MOST_ANSWER if options.limits.max_tokens < 0 else options.limits.max_tokens
    return replace(
        options, asked={"temperature": 0.0, **options.asked}, limits=replace(options.limits, max_tokens=most)
    )
