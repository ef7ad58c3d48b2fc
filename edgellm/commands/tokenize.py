"""`edgellm tokenize MODEL [TEXT]`: the tokens of a text, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from edgellm.errors import UsageError
from edgellm.serve.scoring.speller import token_name
from edgellm.ui import options
from edgellm.ui.console import note, print_table
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.model_names import model_names
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.prompt import piped_input
from edgellm.ui.render import render


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text as a model reads it: the ids of its tokens, and the text of each."""

    model: str
    tokens: tuple[int, ...]
    texts: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many tokens the text has."""
        return len(self.tokens)


def tokenize(
    model: Annotated[
        str, typer.Argument(help="A model's name, or the path of a GGUF file.", autocompletion=model_names)
    ],
    text: Annotated[str, typer.Argument(help="The text; piped input is appended.", callback=options.typed)] = "",
    special: Annotated[bool, typer.Option("--special", help="Read <|im_end|> and the like as one token each.")] = False,
    *,
    output: QuietOutput,
) -> TokenizedText:
    """Show the tokens of a text. Only the vocabulary is loaded, so it is quick for large models too.

    \b
    Examples: edgellm tokenize smollm2 "What is a ternary weight?"
              edgellm tokenize smollm2 --json < README.md
    """
    whole = text + piped_input()
    if not whole:
        raise UsageError("there is no text", hint=f'edgellm tokenize {model} "What is a ternary weight?"')
    here = building_workspace(offline=False, quiet=output.silent)
    with progress(quiet=output.silent) as report:
        path = here.model(model, report=report).path
    vocabulary = here.engine().load(path, only_vocabulary=True)
    try:
        tokens = vocabulary.tokenize(whole, special=special)
        found = TokenizedText(model, tuple(tokens), tuple(token_name(vocabulary, token) for token in tokens))
    finally:
        vocabulary.close()
    return render(output, found, lambda found: _print(found, quiet=output.quiet))


def _print(found: TokenizedText, *, quiet: bool) -> None:
    rows = [(str(token), repr(text)) for token, text in zip(found.tokens, found.texts, strict=True)]
    print_table(("ID", "TEXT"), rows, right=(0,))
    if not quiet:
        note(f"{found.count:,} tokens")
