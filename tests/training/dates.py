"""The worked example of docs/how-to/finetune.md: a house's own way to write dates.

write_examples(Path("dates.jsonl"), first=0, n=100)     # {"messages": [...]} on each line
questions(n=20)                                         # others, which are in no example
"""

import json
import random
from pathlib import Path

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
ASK = "Write the date {} as our house does."


def dates(seed: int, n: int) -> list[tuple[str, str]]:
    """Dates as people write them, and as the house does: 3 March 2024, 03-MAR-24."""
    draw, found = random.Random(seed), {}
    while len(found) < n:
        day, month, year = draw.randint(1, 28), draw.randrange(12), draw.randint(1990, 2030)
        found[f"{day} {MONTHS[month]} {year}"] = f"{day:02}-{MONTHS[month][:3].upper()}-{year % 100:02}"
    return list(found.items())


def write_examples(path: Path, n: int = 100) -> Path:
    """Write chats to learn from."""
    rows = [
        {"messages": [{"role": "user", "content": ASK.format(plain)}, {"role": "assistant", "content": ours}]}
        for plain, ours in dates(1, n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(n: int = 20) -> list[tuple[str, str]]:
    """Questions and right answers; none of the dates is in the first thousand examples."""
    known = {plain for plain, _ in dates(1, 1000)}
    return [(ASK.format(plain), ours) for plain, ours in dates(2, 400) if plain not in known][:n]


if __name__ == "__main__":
    write_examples(Path("dates.jsonl"))
