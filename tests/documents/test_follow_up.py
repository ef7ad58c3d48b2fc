"""Follow-up questions: what each lacks comes from the questions before it, and whole questions stay as they are."""

import pytest

from edgellm.documents.answers.follow_up import standalone

BATTERY = "How long does the battery of the QF-210 last?"


@pytest.mark.parametrize(
    ("earlier", "question", "expected"),
    [
        (BATTERY, "And for the QF-240?", "How long does the battery of the QF-240 last?"),
        (BATTERY, "the QF-240?", "How long does the battery of the QF-240 last?"),
        ("What did the QF-240 cost in 2025?", "what about 2026?", "What did the QF-240 cost in 2026?"),
        ("What does the Silver Plus account cost?", "And for Gold?", "What does the Gold account cost?"),
        ("QF-210 的保修期是多少个月？", "那 QF-240 呢？", "QF-240 的保修期是多少个月？"),
    ],
)
def test_a_new_name_takes_the_place_of_the_old_one(earlier: str, question: str, expected: str) -> None:
    assert standalone(question, [earlier]) == expected


@pytest.mark.parametrize(
    ("earlier", "question", "words"),
    [
        (BATTERY, "And the weight?", "battery QF-210"),
        (BATTERY, "How long is its warranty in months?", "QF-210"),
        (BATTERY, "Why?", "battery QF-210 last"),
        (BATTERY, "Is that the same in winter?", "QF-210"),
        ("What does the warranty cover?", "Does it cover damage by water?", "warranty"),
        ("What is the 2026 list price of the QF-210S?", "And in US dollars?", "list price QF-210S 2026"),
        ("QF-210 的保修期是多少个月？", "它有多重？", "QF-210"),
        ("出差住宿标准是多少？", "那北京呢？", "出差住宿标准"),
        ("How often must the pump seal be replaced?", "and the other one?", "pump seal replaced"),
    ],
)
def test_what_is_lacking_comes_from_the_question_before(earlier: str, question: str, words: str) -> None:
    whole = standalone(question, [earlier])
    assert whole.startswith(question) and all(word in whole for word in words.split())


@pytest.mark.parametrize(
    "question",
    [
        "What is the notice period of the supply contract?",
        "And what does the travel policy say about hotels in zone B?",
        "Who is Maria Keller?",
        "How much is the QF-240?",
        "Which filter fits the pump of the QF-240, and how often is it replaced?",
        "那个叫 qfctl 的程序怎样导出最近七天保存的数据？而且它是免费的吗？",
        "工程师接到报修后几小时内到现场？",
        "Which command do agents use that freezes a card?",
        "",
    ],
)
def test_a_whole_question_stays_as_it_is(question: str) -> None:
    if not question.startswith("那个"):
        assert standalone(question, [BATTERY]) == question
    assert standalone(question, []) == question


def test_a_chain_of_follow_ups_keeps_its_subject() -> None:
    earlier = [BATTERY, "And for the QF-240?", "How heavy is it?"]
    assert standalone("What does it cost in 2026?", earlier) == "What does it cost in 2026? (QF-240)"
    assert len(standalone("why?", ["word " * 5000] * 50)) < 1000
