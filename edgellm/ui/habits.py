"""What people type who know other tools, in edgellm's words: Ollama's, llama.cpp's, and those that one guesses.

    spelled(["help", "run"])                        ->  ["run", "--help"]
    model_first(["-m", "smollm2", "-p", "hi"])      ->  ["smollm2", "-p", "hi"]

No verb is run that was not typed: an unknown one is only suggested.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Verbs of other tools, and ours that do the same.
VERBS = {
    "add": "import", "ask": "run", "benchmark": "bench", "complete": "run", "create": "import", "delete": "rm",
    "del": "rm", "download": "pull", "embed": "serve", "find": "search", "generate": "run", "get": "pull",
    "history": "chats", "info": "show", "inspect": "show", "install": "pull", "kill": "stop", "models": "list",
    "perplexity": "quality", "prompt": "run", "quantise": "quantize", "remove": "rm", "server": "serve",
    "start": "serve", "status": "ps", "talk": "chat", "uninstall": "rm",
}  # fmt: skip
# Commands of other chats, and ours that do the same.
CHAT = {
    "/?": "/help", "/h": "/help", "/bye": "/exit", "/quit": "/exit", "/q": "/exit", "/new": "/clear",
    "/reset": "/clear", "/retry": "/regen", "/regenerate": "/regen", "/read": "/file", "/summarize": "/compact",
    "/summarise": "/compact",
}  # fmt: skip
# The same for whole lines.
CHAT_LINES = {"/show": "/model", "/show info": "/model"}
# Settings of other tools, by the names that /set has; those of sampling options are in their table.
SETTINGS = {"num_ctx": "ctx", "n_ctx": "ctx", "ctx_size": "ctx", "num_predict": "max_tokens", "n_predict": "max_tokens"}


def spelled(arguments: Sequence[str]) -> list[str]:
    """A command line with `help VERB` as the option that it means."""
    if arguments and arguments[0] == "help":
        return [*arguments[1:], "--help"]
    return list(arguments)


def value_given(arguments: Sequence[str], option: str, value: str, pattern: re.Pattern[str]) -> list[str]:
    """The arguments with a value for an option that may stand alone: the next one if it looks so, else `value`."""
    words = list(arguments)
    for index, word in enumerate(words):
        if word == "--":
            break
        following = words[index + 1] if index + 1 < len(words) else ""
        if word == option and not pattern.fullmatch(following):
            return [*words[: index + 1], value, *words[index + 1 :]]
    return words


def model_first(arguments: Sequence[str]) -> list[str]:
    """The arguments of a verb with what `-m` and `--model` name in the place of its argument MODEL."""
    models, others, words = [], [], list(arguments)
    while words and words[0] != "--":
        word = words.pop(0)
        if word in ("-m", "--model") and words:
            models.append(words.pop(0))
        elif word.startswith("--model="):
            models.append(word.removeprefix("--model="))
        else:
            others.append(word)
    return [*models, *others, *words]
