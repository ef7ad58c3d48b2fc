# ruff: noqa: E501, SIM905 (lines of corpus)
"""Texts that loop and texts that only look like it, in English and Chinese; `tests.run.loop_report` runs the guard on all.

A looping text is an opening and a unit that comes again and again, exactly or drifting as models do: a counter at the
line's beginning or in the sentence, other punctuation, other case. A legitimate one repeats because it was asked to.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

TIMES = 80


@dataclass(frozen=True)
class Text:
    """`third` is the offset in characters where the third repetition ends; None: the text is legitimate."""

    kind: str
    text: str
    third: int | None = None


# --- loops -----------------------------------------------------------------------------------------------------------

OPENINGS = [
    "",
    "The temperature of the furnace is decided by several things, and each of them deserves a closer look.\n\n",
    "Let us solve the equation 2(x-3)(x-3)+5=3x+10 step by step.\n\n",
]
OPENINGS_ZH = ["", "高炉炉温突然升高的原因有很多，下面逐一说明。\n\n", "好的，我来回答你的问题：\n"]

PHRASES = [
    "Yes, I am good. ",
    "I don't know. ",
    "and so on ",
    "the temperature of the furnace and ",
    "You're welcome! ",
    "I'm sorry, but I can't help with that. ",
    "What is the capital of France? The capital of France is Paris. ",
    "very ",
    "Thank you. ",
    "It is important to note that the coke is important. ",
]
PHRASES_ZH = [
    "炉温升高，",
    "我不知道。",
    "好的，",
    "焦炭的反应性越高，炉温越高，",
    "是的，我很好。",
    "因为温度升高，所以温度升高。",
    "谢谢！",
    "非常",
    "请问还有什么可以帮您的吗？",
    "高炉的温度是由焦炭的温度决定的，焦炭的温度是由高炉的温度决定的。",
]
LINES = [
    "- The coke reacts with the oxygen and the temperature rises.\n",
    "The answer is 42.\n",
    "User: Hello, how are you?\nAssistant: I am fine, thank you.\n",
    "Subtract 10 from both sides of the equation: 2x^2 - 15x + 13 = 0\n\n",
    "    total = total + value\n",
    "<p>This is a paragraph.</p>\n",
    "| name | value | unit |\n",
    '    "description": "This is a description of the item",\n',
    "### Conclusion\n\nThank you for reading.\n\n",
    "import numpy as np\nimport pandas as pd\n",
]
LINES_ZH = [
    "答案是四十二。\n",
    "- 焦炭与氧气反应，炉温升高。\n",
    "用户：你好\n助手：你好，请问有什么可以帮您？\n",
    "两边同时减去10，得到 2x^2 - 15x + 13 = 0\n\n",
    "### 总结\n\n希望以上内容对您有所帮助。\n\n",
]
PARAGRAPHS = [
    "The blast furnace is charged from the top with coke, ore and limestone. Hot air is blown in from below, and the"
    " coke burns. When the moisture of the blast falls or the coke's quality changes, the temperature jumps, and the"
    " operators have to reduce the blast temperature until the silicon content of the iron is normal again.\n\n",
    "To solve the equation we first expand the brackets. We get 2x^2 - 12x + 18 + 5 = 3x + 10. Then we bring all terms"
    " to the left side and get 2x^2 - 15x + 13 = 0. We factor this as (2x - 13)(x - 1) = 0.\n\n",
    "I think that is a great question. There are many reasons why people visit Paris, and one of the main reasons is"
    " the rich history and culture of the city. Another reason is the food. I hope this helps you to plan your trip!\n",
]
PARAGRAPHS_ZH = [
    "高炉炉温突然升高，首先要检查焦炭的质量。如果焦炭的灰分降低、固定碳升高，那么单位焦炭放出的热量就会增加，"
    "炉温也就随之上升。其次要检查鼓风湿度，鼓风湿度降低时，水分分解吸收的热量减少，炉温同样会上升。\n\n",
    "解这个方程，首先展开括号，得到 2x^2 - 12x + 18 + 5 = 3x + 10。然后移项，得到 2x^2 - 15x + 13 = 0。"
    "最后因式分解，得到 (2x - 13)(x - 1) = 0。\n\n",
]
LABELLED = [
    "{n}. The quality of the coke decides how hot the furnace gets in the end.\n",
    "Step {n}: Subtract 10 from both sides of the equation to isolate the variable.\n",
    "**Step {n}:** Combine the like terms: 2x^2 - 15x + 13 = 0\n\n",
    "{n}) Check the moisture of the blast, then check it again.\n",
    "Step {n}: We simplify both sides and obtain \\[ \\frac{{2x - 13}}{{2}} = 0 \\] once more, as before.\n",
    "({n}) It is important to keep the temperature stable at all times.\n",
    "### {n}. The role of the coke\n\nThe coke gives heat, carbon monoxide, and support to the burden.\n\n",
    "{roman}. The operators reduce the temperature of the blast by hand.\n",
    "{letter}) The operators reduce the temperature of the blast by hand.\n",
]
LABELLED_ZH = [
    "{n}. 检查焦炭的质量和鼓风的湿度。\n",
    "第{zh}步：两边同时减去10，继续化简方程。\n",
    "{zh}、降低风温，减少喷煤量，观察炉温变化。\n",
    "（{zh}）焦炭质量的变化会导致炉温升高。\n",
    "{n}、高炉炉温升高的原因是焦炭的反应性升高。\n",
]
COUNTED = [
    "I have now tried this {n} times, and the result of the calculation is still the same. ",
    "After {n} minutes the temperature has risen and the operator should check the coke again. ",
    "This brings the number of reasons why the furnace is getting hotter to {n}, which is remarkable. ",
]
COUNTED_ZH = [
    "经过{n}分钟以后，炉温继续升高，操作人员应当再次检查焦炭。",
    "这是第 {n} 次计算，得到的结果仍然和上面完全一样。",
]
TOKENS = ["!", "\n", "a", "0", "。", "哈", "\u200b", "🌍", "... ", "=-", "ab", "</s>", " the"]
PUNCTUATION = [".", "!", "...", ",", ";", " -", "?"]
ROMAN = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv", "xvi", "xvii",
         "xviii", "xix", "xx", "xxi", "xxii", "xxiii", "xxiv", "xxv"]  # fmt: skip


def chinese_number(n: int) -> str:
    """1 to 999 in Chinese."""
    digits = "零一二三四五六七八九"
    if n < 20:
        return ("十" if n >= 10 else "") + (digits[n % 10] if n % 10 else "")
    if n < 100:
        return digits[n // 10] + "十" + (digits[n % 10] if n % 10 else "")
    rest = n % 100
    tail = "" if not rest else ("零" if rest < 10 else "一" if rest < 20 else "") + chinese_number(rest)
    return digits[n // 100] + "百" + tail


def loop(kind: str, opening: str, unit: Callable[[int], str]) -> Text:
    """An opening and so many units that nobody would wait for them."""
    units = [unit(n) for n in range(1, max(TIMES, 3000 // len(unit(1))) + 1)]
    return Text(kind, opening + "".join(units), len(opening + "".join(units[:3])))


def labelled(template: str) -> Callable[[int], str]:
    """A unit whose label counts."""
    return lambda n: template.format(n=n, zh=chinese_number(n), roman=ROMAN[n % 25], letter=chr(97 + n % 26))


def punctuated(unit: str) -> Callable[[int], str]:
    """A unit whose punctuation changes, and now and then its case."""
    words = unit.strip().rstrip(".!?,。！，")
    return lambda n: (words.upper() if n % 5 == 0 else words) + PUNCTUATION[n * n % len(PUNCTUATION)] + " "


def punctuated_zh(unit: str) -> Callable[[int], str]:
    """A Chinese unit whose punctuation changes."""
    words = unit.strip().rstrip("。！，？")
    return lambda n: words + "，。！；、"[n * n % 5]


def same(unit: str) -> Callable[[int], str]:
    """The same unit every time."""
    return lambda _: unit


def loops() -> Iterator[Text]:
    """Texts that loop."""
    for name, units, openings in (
        ("phrase", PHRASES, OPENINGS),
        ("phrase zh", PHRASES_ZH, OPENINGS_ZH),
        ("line", LINES, OPENINGS),
        ("line zh", LINES_ZH, OPENINGS_ZH),
        ("paragraph", PARAGRAPHS, OPENINGS),
        ("paragraph zh", PARAGRAPHS_ZH, OPENINGS_ZH),
    ):
        for opening, unit in itertools.product(openings[:2], units):
            yield loop(name, opening, same(unit))
    for opening in (OPENINGS[0], OPENINGS[2]):
        yield from (loop("label", opening, labelled(template)) for template in LABELLED)
        yield from (loop("counter", opening, labelled(template)) for template in COUNTED)
    for opening in (OPENINGS_ZH[0], OPENINGS_ZH[2]):
        yield from (loop("label zh", opening, labelled(template)) for template in LABELLED_ZH)
        yield from (loop("counter zh", opening, labelled(template)) for template in COUNTED_ZH)
    yield from (loop("punctuation", OPENINGS[1], punctuated(unit)) for unit in (*PHRASES[:7], PHRASES[9]))
    yield from (loop("punctuation zh", OPENINGS_ZH[1], punctuated_zh(unit)) for unit in PHRASES_ZH)
    for unit in PARAGRAPHS:  # paragraphs that begin with a growing number
        yield loop("paragraph, label", OPENINGS[1], lambda n, unit=unit: f"{n}. {unit}")  # type: ignore[misc]
    for unit in PARAGRAPHS_ZH:
        yield loop("paragraph, label zh", OPENINGS_ZH[1], lambda n, unit=unit: f"{n}、{unit}")  # type: ignore[misc]
    # A list of five whose numbers go on while its items come again.
    items = ["check the coke", "check the blast", "check the ore", "reduce the heat", "wait for an hour"]
    yield loop("list, label", "", lambda n: "".join(f"{5 * n + i}. {item}\n" for i, item in enumerate(items)))
    for unit in TOKENS:
        yield loop("token", OPENINGS[1], same(unit))
    yield loop("array", '{"fruits": [', same('"apple", "banana", '))
    yield loop("object", '{"items": [', same('{"name": "apple", "kind": "fruit"}, '))


# Several numbers that count on together: only so often it is certain that nobody wants to read it.
IN_STEP = [
    "Day {n}: I ate {m} apples.\n",
    "Day {n}: I woke up at the farm and fed {m} of the chickens. ",
    "{n}. The operator checks furnace {n} and writes the result down.\n",
    "In {year} the company opened {m} stores and hired many new people. ",
    "After {n} hours the furnace was hot, and after {m} hours it was still hot. ",
    "**Step {n}:** Add {n} to both sides, then add {m} to both sides.\n",
    "Chapter {n}: The knight meets dragon number {m} and goes home again.\n\n",
]
IN_STEP_ZH = ["第{n}天：我吃了{m}个苹果，很开心。\n", "到了第{n}个小时，炉温升高了，到了第{m}个小时，炉温还在升高。"]


def loops_in_step() -> Iterator[Text]:
    """Texts that loop with several numbers in a unit; `third` is the end of the hundredth."""
    for opening, template in itertools.product(OPENINGS[:2], IN_STEP):
        yield in_step("in step", opening, template)
    for opening, template in itertools.product(OPENINGS_ZH[:2], IN_STEP_ZH):
        yield in_step("in step zh", opening, template)


def in_step(kind: str, opening: str, template: str) -> Text:
    """Three hundred units."""
    units = [template.format(n=n, m=n + 1, year=1900 + n) for n in range(1, 301)]
    return Text(kind, opening + "".join(units), len(opening + "".join(units[:100])))


# --- legitimate ------------------------------------------------------------------------------------------------------

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
SMALL = [*ONES.split(), "seventeen", "eighteen", "nineteen"]
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()


def english_number(n: int) -> str:
    """0 to 1,000 in words."""
    if n < 20:
        return SMALL[n]
    if n < 100:
        return TENS[n // 10] + (f"-{SMALL[n % 10]}" if n % 10 else "")
    if n == 1000:
        return "one thousand"
    return f"{SMALL[n // 100]} hundred" + (f" and {english_number(n % 100)}" if n % 100 else "")


def counting() -> Iterator[str]:
    """Counting, in many manners."""
    for separator in ("\n", ", ", " ", "; ", "\n\n"):
        yield separator.join(str(n) for n in range(1, 1001))
    yield ", ".join(str(n) for n in range(1000, 0, -1))
    yield "\n".join(f"{n}." for n in range(1, 501))
    yield "\n".join(f"{n:03d}" for n in range(1000))
    yield "\n".join(f"{n:,}" for n in range(900, 2000))
    yield ", ".join(english_number(n) for n in range(1001))
    yield "\n".join(english_number(n) for n in range(1001))
    yield "、".join(chinese_number(n) for n in range(1, 1000))
    yield "\n".join(chinese_number(n) for n in range(1, 1000))
    yield from (", ".join(str(n) for n in range(step, 400 * step, step)) for step in (2, 3, 5, 7, 10, 25, 100))
    yield ", ".join(str(n * n) for n in range(1, 300))
    yield ", ".join(f"{n / 10:.1f}" for n in range(600))
    yield " ".join(f"{n:08b}" for n in range(256))
    yield " ".join(f"0x{n:02x}" for n in range(256))
    yield "\n".join(f"{n} is {'even' if n % 2 == 0 else 'odd'}" for n in range(1, 200))
    yield "\n".join("FizzBuzz" if n % 15 == 0 else "Fizz" if n % 3 == 0 else "Buzz" if n % 5 == 0 else str(n)
                    for n in range(1, 301))  # fmt: skip
    yield "\n".join(f"The number {n}" for n in range(1, 150))
    yield "\n".join(f"第{n}个数字" for n in range(1, 150))
    yield "\n".join(f"2^{n} = {2**n}" for n in range(100))
    yield "3." + "1415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170679"
    yield "1/3 = 0." + "3" * 100
    yield "1/7 = 0." + "142857" * 20


def tables() -> Iterator[str]:
    """Tables of all kinds."""
    for n in (7, 9, 12):
        yield "\n".join(f"{n} x {m} = {n * m}" for m in range(1, 101))
        yield "\n".join(" ".join(f"{a}×{b}={a * b}" for b in range(1, a + 1)) for a in range(1, n + 1))
    head = "| {} | {} | {} |\n|---|---|---|\n"
    yield head.format("x", "x²", "x³") + "\n".join(f"| {n} | {n**2} | {n**3} |" for n in range(1, 120))
    yield head.format("p", "q", "p and q") + "\n".join(f"| {a} | {b} | {a and b} |" for a in (0, 1) for b in (0, 1))
    rows = itertools.product((False, True), repeat=5)
    yield "\n".join("| " + " | ".join("true" if v else "false" for v in row) + " |" for row in rows)
    yield head.format("time", "room", "state") + "\n".join(f"| {h}:00 | {100 + h} | free |" for h in range(24))
    yield head.format("day", "task", "done") + "\n".join(f"| {d} | | |" for d in range(1, 32))
    yield head.format("feature", "ours", "theirs") + "| yes | yes | no |\n" * 12
    yield head.format("name", "from", "to") + "|   |   |   |\n" * 30
    yield head.format("日期", "上午", "下午") + "\n".join(f"| {d}日 | 上课 | 自习 |" for d in range(1, 32))
    yield head.format("星期", "课程", "教室") + "\n".join(
        f"| 星期{d} | {c} | {r} |" for d, c, r in itertools.product("一二三四五", ("语文", "数学", "英语"), (101, 102))
    )
    yield "date,open,close\n" + "\n".join(f"2026-01-{d:02d},{100 + d},{101 + d}" for d in range(1, 32))
    yield "id,name,active\n" + "\n".join(f"{n},user{n},true" for n in range(1, 150))
    yield "\n".join("\t".join(str((a * b) % 10) for b in range(20)) for a in range(20))
    yield "Celsius to Fahrenheit\n" + "\n".join(f"{c} °C = {c * 9 / 5 + 32:.1f} °F" for c in range(-40, 101))
    yield "\n".join(f"{h:02d}:{m:02d}" for h in range(24) for m in range(0, 60, 15))
    yield "\n".join(f"Day {n}: Rest, and drink plenty of water." for n in range(1, 8))
    yield "\n".join(f"Week {n}: Run three times, and rest on the other days." for n in range(1, 13))
    yield "\n".join(f"第{chinese_number(n)}天：休息，多喝水。" for n in range(1, 8))
    yield "\n".join(f"{n}. {'ABCD'[n * 7 % 4]}" for n in range(1, 101))
    yield "\n".join(f"{n}. B" for n in range(1, 101))
    yield "\n".join(f"Question {n}: ________" for n in range(1, 31))
    yield "```\n" + "0 0 0 0 0 0 0 0\n" * 24 + "```"
    yield "```\n" + "\n".join("".join("#" if x in (0, 19) or y in (0, 9) else "." for x in range(20))
                              for y in range(10)) + "\n```"  # fmt: skip
    yield "\n".join(" " * (20 - n) + "*" * (2 * n - 1) for n in range(1, 20))
    yield "Name: ____________________\nDate: ____________________\nSignature: ____________________\n" * 3


def fenced(language: str, lines: str) -> Iterator[str]:
    """Code as models write it: in a fence; and as files have it."""
    yield f"Here is the code:\n\n```{language}\n{lines}\n```\n"
    yield lines


def code() -> Iterator[str]:
    """Code with similar lines."""
    join = "\n".join
    yield from fenced("c", join(f"    case {n}: return handle_default(event);" for n in range(60)))
    yield from fenced("c", "switch (n) {\n" + join(f"    case {n}:\n        puts(\"{n}\");\n        break;"
                                                   for n in range(40)) + "\n}")  # fmt: skip
    yield from fenced(
        "c", "static const uint8_t table[256] = {\n" + "    0x00, 0x00, 0x00, 0x00, 0x00, 0x00,\n" * 42 + "};"
    )
    yield from fenced("c", join(f"#define REGISTER_{n} (BASE + {4 * n})" for n in range(64)))
    yield from fenced("asm", join(["nop"] * 40))
    yield from fenced("python", join(f"assert add({n}, 1) == {n + 1}" for n in range(80)))
    yield from fenced("python", join(f"self.assertEqual(square({n}), {n * n})" for n in range(60)))
    yield from fenced("python", join(f"print('Processing item {n}')" for n in range(100)))
    yield from fenced("python", join(f"x[{n}] = 0" for n in range(120)))
    yield from fenced("python", "matrix = [\n" + "    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],\n" * 10 + "]")
    yield from fenced("python", "board = [" + "0, " * 399 + "0]")
    yield from fenced("sql", join(f"INSERT INTO users (id, name) VALUES ({n}, 'user{n}');" for n in range(80)))
    yield from fenced("html", "<table>\n" + "  <tr>\n    <td></td>\n    <td></td>\n  </tr>\n" * 6 + "</table>")
    yield from fenced(
        "html", "<ul>\n" + join(f'  <li><a href="page{n}.html">Page {n}</a></li>' for n in range(60)) + "\n</ul>"
    )
    yield from fenced(
        "html", "<select>\n" + join(f'<option value="{y}">{y}</option>' for y in range(1950, 2027)) + "\n</select>"
    )
    yield from fenced("css", join(f".m-{n} {{ margin: {n}px; }}\n.p-{n} {{ padding: {n}px; }}" for n in range(50)))
    yield from fenced("yaml", join(f"- id: {n}\n  name: item\n  enabled: true" for n in range(60)))
    yield from fenced("toml", join(f'[[server]]\nport = {8000 + n}\nhost = "localhost"' for n in range(40)))
    yield from fenced("bash", join(f"cp file{n}.txt backup/file{n}.txt" for n in range(60)))
    yield from fenced("", join(f"[INFO] 12:00:{n:02d} the worker is processing request number {n} of the queue now"
                               for n in range(60)))  # fmt: skip
    yield from fenced("", join(f"10:00:{n:02d} GET /index.html 200" for n in range(60)))
    yield from fenced("java", join(f"public int getField{n}() {{\n    return field{n};\n}}\n" for n in range(30)))
    yield from fenced("go", "if err != nil {\n    return err\n}\n" * 3 + join(f"step{n}()\nif err != nil {{\n    return err\n}}"
                                                                              for n in range(20)))  # fmt: skip
    yield from fenced("latex", join(f"a_{{{n}}} & b_{{{n}}} \\\\" for n in range(40)))
    yield from fenced("python", join(f"import module_{n}" for n in range(60)))
    yield from fenced("diff", join(f"-old line {n}\n+new line {n}" for n in range(60)))
    yield from fenced("c", join(f"sum += a[{n}] * b[{n}];" for n in range(64)))
    yield from fenced("python", join(f"# 第{n}步\nresult = result + {n}" for n in range(50)))


def arrays() -> Iterator[str]:
    """JSON."""
    values: list[object] = [
        [0] * 300,
        [1.0] * 200,
        [True] * 150,
        [None] * 120,
        [[0] * 16] * 16,
        [[0, 0, 0]] * 60,
        [""] * 60,
        list(range(500)),
        [{"id": n, "name": f"Item {n}", "price": n * 10} for n in range(80)],
        [{"id": n, "value": 0} for n in range(120)],
        [{"id": n, "name": "unknown", "enabled": False, "tags": []} for n in range(60)],
        [{"x": n, "y": n * n} for n in range(100)],
        [{"role": "user", "content": f"question {n}"} for n in range(60)],
        {f"key{n}": None for n in range(120)},
        {f"key{n}": {"min": 0, "max": 100} for n in range(60)},
        [{"编号": n, "名称": f"商品{n}", "库存": 0} for n in range(60)],
        [{"姓名": "未知", "编号": n} for n in range(60)],
        [[n, n + 1] for n in range(150)],
        [n % 2 for n in range(300)],
        ["a", "b", "c"] * 8,
    ]
    yield from (json.dumps(value, ensure_ascii=False) for value in values)
    yield from (json.dumps(value, ensure_ascii=False, indent=2) for value in values)
    yield "\n".join(json.dumps({"id": n, "text": "a line of the file", "label": 1}) for n in range(60))


def laughter() -> Iterator[str]:
    """A few words many times, as people write them."""
    for word, times in (
        ("ha ", 60), ("ha", 50), ("Ha! ", 30), ("hahaha ", 20), ("no, ", 30), ("la ", 60), ("very ", 25), ("tick tock ", 30),
        ("knock knock ", 20), ("blah ", 30), ("go ", 40), ("bla bla ", 20), ("meow ", 30), ("Buffalo ", 8), ("yeah ", 40),
        ("哈", 100), ("哈哈 ", 30), ("呵呵，", 25), ("不", 30), ("好，", 30), ("啦啦啦，", 20), ("滴答，", 30), ("对对对，", 20),
        ("加油！", 30), ("!", 40), ("-", 80), ("=", 80), ("🎉", 30), (".", 60), ("_", 60),
    ):  # fmt: skip
        yield word * times
    yield "The joke was good. " + "Ha ha ha! " * 10 + "I could not stop laughing, and neither could she."
    yield "他笑了起来：“" + "哈哈哈" * 20 + "”，怎么也停不下来。"


def songs() -> Iterator[str]:
    """Refrains, litanies, rhymes that count."""
    yield "\n".join(
        f"{n} bottles of beer on the wall, {n} bottles of beer.\nTake one down and pass it around, {n - 1} bottles of beer"
        " on the wall.\n"
        for n in range(99, 1, -1)
    )
    yield "\n".join(
        f"{english_number(n).capitalize()} green bottles hanging on the wall,\n"
        * 2
        + "And if one green bottle should accidentally fall,\n"
        f"There'll be {english_number(n - 1)} green bottles hanging on the wall.\n"
        for n in range(10, 0, -1)
    )
    for count in (str, english_number):
        yield "\n".join(
            f"{count(n).capitalize()} little monkeys jumping on the bed,\nOne fell off and bumped his head.\nMama called"
            ' the doctor and the doctor said,\n"No more monkeys jumping on the bed!"\n'
            for n in range(10, 0, -1)
        )
        yield "\n".join(
            f'There were {count(n)} in the bed\nAnd the little one said,\n"Roll over, roll over."\nSo they all rolled'
            " over and one fell out.\n"
            for n in range(10, 1, -1)
        )
    yield "\n".join(
        f"{english_number(n).capitalize()} elephants went out to play\nUpon a spider's web one day.\nThey had such enormous"
        " fun\nThat they called for another elephant to come.\n"
        for n in range(2, 12)
    )
    yield (
        "Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily, merrily,\nLife is but a dream.\n\n"
        * 4
    )
    yield "Are you sleeping, are you sleeping,\nBrother John, Brother John?\nMorning bells are ringing, morning bells are"\
        " ringing.\nDing, dang, dong. Ding, dang, dong.\n\n" * 3  # fmt: skip
    farm = {
        "cow": "moo",
        "pig": "oink",
        "duck": "quack",
        "horse": "neigh",
        "lamb": "baa",
        "hen": "cluck",
        "dog": "woof",
    }
    yield "\n".join(
        f"Old MacDonald had a farm, E-I-E-I-O.\nAnd on that farm he had a {animal}, E-I-E-I-O.\nWith a {sound}-{sound} here"
        f" and a {sound}-{sound} there,\nHere a {sound}, there a {sound}, everywhere a {sound}-{sound}.\nOld MacDonald had a"
        " farm, E-I-E-I-O.\n"
        for animal, sound in farm.items()
    )
    wheels = {"wheels": "round and round", "wipers": "swish, swish, swish", "horn": "beep, beep, beep",
              "doors": "open and shut", "driver": "move on back", "people": "up and down"}  # fmt: skip
    yield "\n".join(
        f"The {who} on the bus go {what},\n{what}, {what}.\nThe {who} on the bus go {what},\nAll through the town.\n"
        for who, what in wheels.items()
    )
    house = ["the malt", "the rat", "the cat", "the dog", "the cow", "the maiden", "the man", "the priest", "the cock"]
    did = ["lay in", "ate", "killed", "worried", "tossed", "milked", "kissed", "married", "waked"]
    yield "\n\n".join(
        "This is "
        + " that ".join(f"{house[i]} that {did[i]}" for i in range(n, -1, -1))
        + " the house that Jack built."
        for n in range(9)
    )
    days = [
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
        "eleventh",
        "twelfth",
    ]
    gifts = ["a partridge in a pear tree", "two turtle doves", "three French hens", "four calling birds", "five gold rings",
             "six geese a-laying", "seven swans a-swimming", "eight maids a-milking", "nine ladies dancing",
             "ten lords a-leaping", "eleven pipers piping", "twelve drummers drumming"]  # fmt: skip
    yield "\n\n".join(
        f"On the {day} day of Christmas my true love gave to me,\n" + ",\n".join(reversed(gifts[: n + 1])) + "."
        for n, day in enumerate(days)
    )
    saints = ["Mary", "Michael", "Gabriel", "Raphael", "John", "Joseph", "Peter", "Paul", "Andrew", "James", "Thomas",
              "Philip", "Matthew", "Simon", "Stephen", "Lawrence", "Vincent", "Sylvester", "Gregory", "Ambrose"]  # fmt: skip
    yield "\n".join(f"Saint {saint}, pray for us." for saint in saints)
    yield "Lord, have mercy.\nChrist, have mercy.\nLord, have mercy.\n" * 3
    verse = ("The woods are lovely, dark and deep,\nBut I have promises to keep,\nAnd miles to go before I sleep,\nAnd miles"
             " to go before I sleep.\n")  # fmt: skip
    yield verse * 2
    verses = ["When that I was and a little tiny boy", "But when I came to man's estate", "But when I came, alas! to wive",
              "But when I came unto my beds", "A great while ago the world begun"]  # fmt: skip
    yield "\n".join(
        f"{line},\nWith hey, ho, the wind and the rain,\nA foolish thing was but a toy,\nFor the rain it raineth every day.\n"
        for line in verses
    )
    yield "Should auld acquaintance be forgot, and never brought to mind?\n" + (
        "For auld lang syne, my dear, for auld lang syne,\nWe'll take a cup of kindness yet, for auld lang syne.\n\n"
        * 4
    )
    yield "Na na na na na na na, na na na na, hey Jude.\n" * 9
    yield "蒹葭苍苍，白露为霜。所谓伊人，在水一方。溯洄从之，道阻且长。溯游从之，宛在水中央。\n蒹葭萋萋，白露未晞。所谓伊人，在水之湄。溯洄从之，道阻且跻。溯游从之，宛在水中坻。\n蒹葭采采，白露未已。所谓伊人，在水之涘。溯洄从之，道阻且右。溯游从之，宛在水中沚。"
    yield "桃之夭夭，灼灼其华。之子于归，宜其室家。\n桃之夭夭，有蕡其实。之子于归，宜其家室。\n桃之夭夭，其叶蓁蓁。之子于归，宜其家人。"
    yield "采采芣苢，薄言采之。采采芣苢，薄言有之。\n采采芣苢，薄言掇之。采采芣苢，薄言捋之。\n采采芣苢，薄言袺之。采采芣苢，薄言襭之。"
    yield "硕鼠硕鼠，无食我黍！三岁贯女，莫我肯顾。逝将去女，适彼乐土。乐土乐土，爰得我所。\n硕鼠硕鼠，无食我麦！三岁贯女，莫我肯德。逝将去女，适彼乐国。乐国乐国，爰得我直。\n硕鼠硕鼠，无食我苗！三岁贯女，莫我肯劳。逝将去女，适彼乐郊。乐郊乐郊，谁之永号？"
    yield "两只老虎，两只老虎，跑得快，跑得快。一只没有眼睛，一只没有尾巴，真奇怪，真奇怪。\n" * 4
    yield "\n".join(
        f"{chinese_number(n)}只青蛙{chinese_number(n)}张嘴，{chinese_number(2 * n)}只眼睛{chinese_number(4 * n)}条腿，扑通扑通跳下水。"
        for n in range(1, 30)
    )
    yield "\n".join(f"{n}只青蛙{n}张嘴，{2 * n}只眼睛{4 * n}条腿，扑通扑通跳下水。" for n in range(1, 60))
    yield "小燕子，穿花衣，年年春天来这里。我问燕子你为啥来，燕子说，这里的春天最美丽。\n" * 2
    yield "从前有座山，山里有座庙，庙里有个老和尚，在给小和尚讲故事。讲的是什么故事呢？" * 4


def prose() -> Iterator[str]:
    """Text whose sentences are built alike."""
    capitals = ["France Paris", "Spain Madrid", "Italy Rome", "Poland Warsaw", "Austria Vienna", "Greece Athens",
                "Norway Oslo", "Finland Helsinki", "Hungary Budapest", "Portugal Lisbon", "Ireland Dublin", "Japan Tokyo",
                "Egypt Cairo", "Kenya Nairobi", "Peru Lima", "Chile Santiago", "Cuba Havana", "Iran Tehran"]  # fmt: skip
    pairs = [pair.split() for pair in capitals]
    yield " ".join(f"The capital of {country} is {city}." for country, city in pairs)
    yield "\n".join(f"Q: What is the capital of {country}?\nA: {city}." for country, city in pairs)
    yield "\n".join(f"- {country}: member since {1950 + n}" for n, (country, _) in enumerate(pairs))
    yield "\n\n".join(
        f"Dear {city},\n\nthank you for your letter. We are glad to tell you that your order has been sent today and will"
        " reach you within the week.\n\nYours,\nthe shop"
        for _, city in pairs[:8]
    )
    zh = ["法国 巴黎", "西班牙 马德里", "意大利 罗马", "波兰 华沙", "奥地利 维也纳", "希腊 雅典", "挪威 奥斯陆",
          "芬兰 赫尔辛基", "匈牙利 布达佩斯", "葡萄牙 里斯本", "日本 东京", "埃及 开罗", "秘鲁 利马"]  # fmt: skip
    yield "".join(f"{pair.split()[0]}的首都是{pair.split()[1]}。" for pair in zh)
    yield "\n".join(f"问：{pair.split()[0]}的首都是哪里？\n答：{pair.split()[1]}。" for pair in zh)
    months = "January February March April May June July August September October November December".split()
    yield "\n".join(f"{month}: sow the seeds, water the beds, and cut the hedge." for month in months)
    yield "\n".join(f"{chinese_number(n)}月：播种，浇水，修剪树篱。" for n in range(1, 13))
    yield "\n".join(f"On day {n} I walked {3 * n} miles and slept for {n % 5 + 4} hours." for n in range(1, 60))
    yield "\n".join(f"If x = {n}, then 2x + 1 = {2 * n + 1}." for n in range(1, 80))
    yield "\n".join(f"{n} 的平方是 {n * n}，{n} 的立方是 {n**3}。" for n in range(1, 80))
    yield "\n".join(
        f"Article {n}. The member states shall respect the provisions of article {n - 1}." for n in range(2, 14)
    )
    yield "\n".join(f"{n}. The product of {n} and {n + 1} is {n * (n + 1)}." for n in range(1, 60))
    yield "I came, I saw, I conquered. " * 5
    yield "All work and no play makes Jack a dull boy.\n" * 10
    yield "I will not talk in class.\n" * 15
    yield "To be, or not to be, that is the question. " * 3
    yield "重要的事情说三遍：" + "不要忘记备份！" * 3
    yield "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。\n" * 3
    yield "Thank you! " * 12
    yield "谢谢大家！" * 12


def several_numbers() -> Iterator[str]:
    """Lines with several numbers that grow, as people ask for them."""
    yield "\n".join(f"{n} times 1 is {n}." for n in range(1, 301))
    yield "\n".join(f"{a} times {b} is {a * b}." for a in range(1, 21) for b in range(1, 21))
    yield "\n".join(f"{n} plus 1 is {n + 1}" for n in range(1, 301))
    yield "\n".join(f"{n} + 1 = {n + 1}" for n in range(1, 301))
    yield "\n".join(f"After {n} comes {n + 1}." for n in range(1, 301))
    yield "\n".join(f"The number {n} comes after the number {n - 1}." for n in range(1, 301))
    yield "\n".join(f"{n}. The square of {n} is {n * n}." for n in range(1, 301))
    yield "\n".join(f"Year {n}: you have {round(1000 * 1.05**n):,} dollars in the account." for n in range(1, 121))
    yield "\n".join(f"Day {n}: Do {2 * n + 8} push-ups, then rest for two minutes." for n in range(1, 121))
    yield "\n".join(f"Week {n}: Run {n + 1} miles, and rest on the other days." for n in range(1, 53))
    yield "\n".join(
        f"Item {n}: {n % 7 + 1} boxes at {n * 13 % 90 + 10} dollars, to be paid at once." for n in range(1, 201)
    )
    yield "\n".join(f"{n}. Student {n}" for n in range(1, 301))
    yield "\n".join(f"Page {n}: chapter {n + 2}" for n in range(1, 301))
    yield "\n".join(f"| Day {n} | we walked to the next town and slept there | {n + 1} km |" for n in range(1, 301))
    yield (
        "```\n"
        + "\n".join(f"step {n}: copied file {n + 1} of the old disk to the new disk" for n in range(1, 301))
        + "\n```"
    )
    yield "\n".join(f"User {n} joined room {n + 1}; status = ok" for n in range(1, 301))
    yield "\n".join(
        f"On the bus were {n} people, then one more got on, so now there are {n + 1}." for n in range(1, 90)
    )
    yield "\n\n".join(
        f"{n} green bottles standing on the wall, {n} green bottles standing on the wall,\n"
        f"and if one green bottle should accidentally fall, there will be {n - 1} green bottles standing on the wall."
        for n in range(99, 0, -1)
    )
    yield "\n".join(
        f"Article {n}. The member states shall respect the provisions of article {n - 1}." for n in range(2, 95)
    )
    yield "\n".join(f"{n},user{n},true,active,Berlin" for n in range(1, 301))
    yield "\n".join(f"{n}\tuser {n}\tlives in\tBerlin and Paris" for n in range(1, 301))
    yield "\n".join(f"{n}. Lesson {n}" for n in range(1, 301))
    yield "\n".join(f"{n}加一等于{n + 1}。" for n in range(1, 301))
    yield "\n".join(f"第{n}天：跑步{n + 2}公里，然后休息。" for n in range(1, 61))


def legitimate() -> Iterator[Text]:
    """Texts that repeat because they should."""
    for kind, texts in (("counting", counting()), ("table", tables()), ("code", code()), ("json", arrays()),
                        ("laughter", laughter()), ("song", songs()), ("prose", prose()),
                        ("several numbers", several_numbers())):  # fmt: skip
        for text in texts:
            yield Text(kind, text)
