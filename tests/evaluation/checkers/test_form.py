"""Endings, length, language, and whether an answer came to its end."""

from typing import Any

import pytest

from edgellm.evaluation.checkers.sentences import in_sentences
from tests.evaluation.checkers.grade import right, verdict

APPLE: dict[str, Any] = {"kind": "endings", "word": "apple", "count": 2}


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("Dr. Li paid 3.5 yuan. Fine!", 2), ("Is it? Yes! No...", 3), ("Mr. A. B. Smith came. He left.", 2),
        ("See e.g. this. And that.", 2), ("One.\nTwo", 2), ('He said "Stop." Then he left.', 2),
        ("你好。再见！真的吗？", 3),
        ("他说：“好。”然后走了。", 2), ("价格是3.5元。好！", 2), ("1. First.\n2. Second.", 2), ("", 0), ("...", 0),
        ("Visit example.com today. Now.", 2), ('"Really?" she asked. Yes.', 2), ("It is 5 p.m. We go.", 2),
        ("The U.S. economy grew. Good.", 2), ("No. 5 is alive.", 1), ("Wait… what? Yes.", 2),
        ("我喜欢A.他不喜欢。", 2),
    ],
)  # fmt: skip
def test_sentences(text: str, n: int) -> None:
    assert len(in_sentences(text)) == n, in_sentences(text)


def test_every_sentence_ends_in_the_word() -> None:
    assert right(APPLE, "I eat an apple. You like Mr. Apple!")
    assert right(APPLE, 'He wants an "apple."\n3.5 yuan buy an *apple*.')
    assert not right(APPLE, "I eat an apple.")
    assert not right(APPLE, "I eat an apple. It is a pineapple.")
    assert not right(APPLE, "I eat an apple. Apples are red.")
    assert verdict({**APPLE, "count": None}, "An apple. A pear.").seen == "1 of 2 sentences end in apple"
    assert right({"kind": "endings", "word": "苹果", "count": 2}, "我吃苹果。你买苹果！")
    assert not right({"kind": "endings", "word": "苹果", "count": 2}, "我吃苹果。苹果好吃。")
    assert right({"kind": "endings", "word": "sky", "of": "line"}, "Up in the sky\nBlue is the sky")
    assert not right({"kind": "endings", "word": "sky"}, "")


@pytest.mark.parametrize(
    ("lengths", "text", "expected"),
    [
        ({"words": 3}, "Just three words", True), ({"words": [2, 4]}, "one", False), ({"words": 3}, "我爱你", True),
        ({"words": 4}, "It's a well-known fact.", True), ({"words": 4}, "Python 很好", False),
        ({"words": 3}, "Python 很好", True), ({"characters": [1, 5]}, " 你好！ ", True),
        ({"characters": 2}, "abc", False),
        ({"sentences": 2}, "Dr. Li paid 3.5 yuan. Fine!", True), ({"lines": 3}, "a\n\nb\nc", True),
        ({"paragraphs": 2}, "a\nb\n\nc", True), ({"words": [1, 9], "lines": 1}, "a b\nc", False),
    ],
)  # fmt: skip
def test_lengths(lengths: dict[str, Any], text: str, expected: bool) -> None:
    assert right({"kind": "length", **lengths}, text) == expected


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cat is on the mat.", "en"), ("Paris", "en"), ("I like to read books in the evening.", "en"),
        ("Le chat est sur le tapis.", "fr"), ("Je ne sais pas ce que vous voulez.", "fr"),
        ("El gato está en la mesa.", "es"), ("Me gusta leer por la noche con mis amigos.", "es"),
        ("Die Katze ist auf dem Tisch.", "de"), ("Ich weiß nicht, wie das geht.", "de"),
        ("Il gatto è sul tavolo con gli altri.", "it"), ("O gato não está em casa.", "pt"),
        ("我们学习中国的历史。", "zh-hans"), ("我們學習中國的歷史。", "zh-hant"), ("你好", "zh"),
        ("我用 Python 写程序。", "zh-hans"), ("これは日本語です。", "ja"), ("한국어입니다", "ko"), ("Это кошка.", "ru"),
    ],
)  # fmt: skip
def test_languages(text: str, language: str) -> None:
    assert right({"kind": "language", "language": language}, text), verdict(
        {"kind": "language", "language": language}, text
    )


def test_a_language_is_not_another_one() -> None:
    assert right({"kind": "language", "language": "zh"}, "我们学习中国的历史。")
    assert right({"kind": "language", "language": "zh"}, "我們學習中國的歷史。")
    assert not right({"kind": "language", "language": "zh"}, "これは漢字の多い日本語の文章です。")
    assert not right({"kind": "language", "language": "en"}, "Le chat est sur le tapis.")
    assert not right({"kind": "language", "language": "en"}, "12345")
    assert right(
        {"kind": "language", "language": "zh"}, "用这个命令：\n```sh\ngit clone the repository and run it\n```"
    )


def test_an_answer_is_finished_if_the_model_ended_it() -> None:
    check = {"kind": "finished"}
    loop = "I am sure that it is so. " * 300
    assert verdict(check, "Yes.").score == 1
    assert verdict(check, " ").why == "it is empty"
    assert verdict(check, "Once upon a time", "length").why == "it was cut at the most tokens"
    assert verdict(check, "So it is.", "repetition").why == "it repeats itself without end"
    assert verdict(check, loop, "length").why == "it repeats itself without end"
