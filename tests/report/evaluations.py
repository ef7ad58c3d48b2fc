"""Evaluations in code, with answers that try to break the page."""

from edgellm.evaluation.evaluation import Evaluation
from edgellm.evaluation.log import LoggedItem, LogHeader
from edgellm.evaluation.score import suite_scores

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '<img src="https://example.com/x.png" onerror="window.hacked = 1">',
    "</pre></details></main><style>body { display: none }</style>",
    "\x1b[31mred\x1b[0m \x00 \ud800 \u202egnp.exe\u202c \u2069",
    "]]> --> &lt; 中文答案 مرحبا",
    "word " * 40_000,
)


def header(model: str = "smollm2 Q4_1") -> LogHeader:
    settings = {"slots": 4, "temperature": 0.0}
    return LogHeader(
        "2026-11-28T22:00:00+00:00", model, "f" * 64, "0.3.36", "e4687ea5483e", "A CPU", settings, {"a": "1"}
    )


def item(n: int, **changes: object) -> LoggedItem:
    """Item `n`: of two suites, categories and languages in turn; every third is wrong."""
    fields: dict[str, object] = {
        "suite": ("kinds", "json")[n % 2], "item": f"item-{n:04d}", "category": ("logic", "knowledge")[n // 2 % 2],
        "language": ("en", "zh")[n // 4 % 2], "pass_name": "",
        "messages": ({"role": "system", "content": "Be short."}, {"role": "user", "content": f"What is {n} * 3?"}),
        "answer": f"It is {n * 3}.", "finish_reason": "stop", "check": {"kind": "number", "value": n * 3},
        "seen": str(n * 3), "score": float(n % 3 > 0), "why": "" if n % 3 else f"expected {n}", "prompt_tokens": 20,
        "completion_tokens": 5 + n, "prefill_seconds": 0.1, "decode_seconds": 0.5,
    }  # fmt: skip
    return LoggedItem(**{**fields, **changes})  # type: ignore[arg-type]


def evaluation(items: list[LoggedItem], model: str = "smollm2 Q4_1") -> Evaluation:
    return Evaluation(header(model), suite_scores(items), tuple(items))


def hostile() -> Evaluation:
    """Twelve items, six with hostile texts wherever a text may stand."""
    texts = [item(n, answer=text, seen=text, why=text, category=text[:40]) for n, text in enumerate(HOSTILE)]
    return evaluation([*texts, *(item(n) for n in range(6, 12))], HOSTILE[0])
