"""The cache as its users see it: what is found, what it learns, and that it never costs an answer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm.cache.answer_cache import AnswerCache, age_text, key
from edgellm.cache.store import AnswerStore
from edgellm.errors import EdgellmError

A, B = "How do I delete my account?", "Please tell me the steps to remove the account that I have."
VECTORS = {A: [1.0, 0.0], B: [0.8, 0.6]}


def embed(question: str) -> Any:
    return np.array(VECTORS.get(question, [0.0, 1.0]), np.float32)


def cache_of(path: Path, **more: Any) -> AnswerCache:
    return AnswerCache(AnswerStore.open(path / "a.sqlite3"), embed=embed, embedder="e", draw=lambda: 0.5, **more)


def ask(cache: AnswerCache, question: str, answer: str, scope: str = "s") -> str:
    """What a user gets."""
    looked = cache.look(scope, question)
    if looked.answer is not None:
        return str(looked.answer["text"])
    cache.keep(looked, {"text": answer}, text=answer, model="m")
    return answer


def test_a_question_of_the_same_meaning_gets_the_stored_answer_with_its_origin(tmp_path: Path) -> None:
    now = [100.0]
    cache = AnswerCache(AnswerStore.open(tmp_path / "a", clock=lambda: now[0]), embed=embed, clock=lambda: now[0])
    assert ask(cache, A, "In the settings.") == "In the settings."
    now[0] += 120
    looked = cache.look("s", B)
    assert looked.answer == {"text": "In the settings."} and looked.origin is not None
    assert str(looked.origin) == "from the cache: 80% alike, 2 minutes old"
    assert looked.origin.header() == "hit; similarity=0.80; age=120"
    assert looked.origin.question == A
    assert cache.look("another", B).answer is None
    assert dict(cache.store.counts()) == {"asked": 1, "similar": 1}


def test_a_near_miss_is_asked(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    ask(cache, "How do I delete my account?", "In the settings.")
    assert ask(cache, "How do I create my account?", "On the front page.") == "On the front page."


def test_an_entry_whose_answer_was_wrong_is_not_given_again(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    ask(cache, A, "In the settings.")
    entry = cache.store.entries()[0].id
    cache.store.observe(entry, 0.85, right=False)
    assert ask(cache, B, "Write to 12 people.") == "Write to 12 people."
    assert (0.8, False) in [(round(similarity, 2), right) for similarity, right in cache.store.observations(entry)]


def test_an_error_of_nothing_asks_always_and_learns(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, error=0.0)
    ask(cache, A, "In the settings.")
    assert ask(cache, B, "It is in the settings.") == "It is in the settings."
    entry = cache.store.exact("s", A)
    assert entry is not None and [right for _, right in cache.store.observations(entry.id)] == [True]


def test_a_file_that_cannot_be_used_costs_no_answer(tmp_path: Path) -> None:
    heard: list[EdgellmError] = []
    cache = cache_of(tmp_path, on_failure=heard.append)
    cache.store.close()
    assert ask(cache, A, "one") == "one" and ask(cache, A, "two") == "two"
    assert len(heard) == 1


def test_long_texts_are_only_found_as_they_stand(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    text = "Summarise this: " + "word " * 1000
    assert ask(cache, text, "Words.") == "Words." == ask(cache, text, "other")
    assert ask(cache, text.replace("Summarise", "Please summarise"), "other") == "other"


def test_a_scope_changes_with_everything_it_is_made_of() -> None:
    scopes = {key(model=model, system=system) for model in ("a", "b") for system in (None, "Be brief.")}
    assert len(scopes) == 4 and key(a=1, b=2) == key(b=2, a=1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 seconds"), (1, "1 second"), (61, "1 minute"), (7200, "2 hours"), (90_000, "1 day")]
)
def test_ages(seconds: float, text: str) -> None:
    assert age_text(seconds) == text
