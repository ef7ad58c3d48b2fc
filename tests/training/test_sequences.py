"""Chats become tokens of which only the answers are learnt; tokens are those that the engine sees when it answers."""

from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.errors import UsageError
from edgellm.run.chat_template import ChatTemplate
from edgellm.run.message import Message
from edgellm.training import sequences
from edgellm.training.data import Example
from edgellm.training.sequences import TokenSequence, tokenize

pytestmark = [pytest.mark.engine, pytest.mark.model]


@pytest.fixture(scope="module")
def vocabulary(llama: LlamaEngine, smollm2: Path) -> LlamaModel:
    return llama.load(smollm2, only_vocabulary=True)


@pytest.fixture(scope="module")
def template(vocabulary: LlamaModel) -> ChatTemplate:
    return ChatTemplate(vocabulary.info.chat_template, bos=vocabulary.info.bos, eos=vocabulary.info.eos)


def chat(*texts: str) -> Example:
    roles = ("user", "assistant") * (len(texts) // 2)
    return Example(7, tuple(Message(role=role, content=text) for role, text in zip(roles, texts, strict=True)))


def learnt(model: LlamaModel, found: TokenSequence) -> list[str]:
    return [model.token_text(int(token)) for token in found.tokens[found.learnt]]


def test_only_answers_are_learnt_up_to_their_end(vocabulary: LlamaModel, template: ChatTemplate) -> None:
    example = chat("Hello there", "Hi", "And now?", "Yes")
    found = tokenize([example], vocabulary, template, n_ctx=512)[0]
    assert learnt(vocabulary, found) == ["Hi", "<|im_end|>", "Yes", "<|im_end|>"]


def test_the_prompt_is_that_of_run(vocabulary: LlamaModel, template: ChatTemplate) -> None:
    example = chat("Write 3 March 2024 shortly.", "03-MAR-24")
    found = tokenize([example], vocabulary, template, n_ctx=512)[0]
    prompt = vocabulary.tokenize(template.render(list(example.messages[:1])), special=True)
    assert found.tokens[: len(prompt)].tolist() == prompt and not found.learnt[: len(prompt)].any()
    assert found.learnt[len(prompt) :][:-1].all()


def test_texts_are_cut_and_learnt_whole(vocabulary: LlamaModel) -> None:
    found = tokenize([Example(1, text="word " * 50)], vocabulary, None, n_ctx=16)
    assert max(len(each.tokens) for each in found) == 16 and len(found) > 2
    assert all(each.learnt[1:].all() and not each.learnt[0] for each in found)
    assert (
        np.concatenate([each.tokens for each in found])[-1]
        == vocabulary.tokenize(vocabulary.info.eos, special=True)[-1]
    )  # the text has its end


def test_a_long_text_is_cut_into_pieces_that_tokenize_as_the_whole(
    vocabulary: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Some lines of words.\nAnd 3 numbers: 1, 22 and 333\n\n" * 40
    whole = np.concatenate([each.tokens for each in tokenize([Example(1, text=text)], vocabulary, None, n_ctx=64)])
    for piece in (100, 29):
        monkeypatch.setattr(sequences, "PIECE", piece)
        found = tokenize([Example(1, text=text)], vocabulary, None, n_ctx=64)
        assert np.array_equal(np.concatenate([each.tokens for each in found]), whole)
    endless = tokenize([Example(1, text="a" * 1000)], vocabulary, None, n_ctx=64)
    text = "".join(vocabulary.token_text(int(token)) for each in endless for token in each.tokens)
    assert text.startswith("a" * 1000)


def test_without_a_template_a_pair_is_put_together(vocabulary: LlamaModel) -> None:
    found = tokenize([chat("one two", " three")], vocabulary, None, n_ctx=64)[0]
    assert "".join(learnt(vocabulary, found)).replace("Ġ", " ").startswith(" three")
    with pytest.raises(UsageError, match="line 7"):
        tokenize([chat("a", "b", "c", "d")], vocabulary, None, n_ctx=64)


def test_long_chats_are_named(vocabulary: LlamaModel, template: ChatTemplate) -> None:
    with pytest.raises(UsageError, match="1 of 2 examples") as caught:
        tokenize([chat("a", "b"), chat("a " * 200, "b")], vocabulary, template, n_ctx=128)
    assert "line 7" in caught.value.why and "--length" in caught.value.hint
