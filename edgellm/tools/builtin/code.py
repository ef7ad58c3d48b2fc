"""The tool `python`: a program in the sandbox that also grades programs of evaluations; it prints its result.

python().call({"code": "print(sum(range(101)))"})  ->  ToolResult("5050")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.sandbox.run import CodeLimits, run
from edgellm.tools.tool import Risk, Tool, ToolResult

LIMITS = CodeLimits(seconds=5.0)
# Of what a program prints, in characters.
MOST_OUTPUT = 20_000
PARAMETERS = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "minLength": 1, "maxLength": 2000, "description": "it prints its result"}
    },
    "required": ["code"],
    "additionalProperties": False,
}
EXAMPLES = tuple(
    (question, {"code": code})
    for question, code in (
        ("Write a program that prints the first 5 square numbers.", "print([n * n for n in range(1, 6)])"),
        ("Use Python to sort the letters of 'banana'.", "print(''.join(sorted('banana')))"),
        ("Run code that counts the vowels in 'education'.", "print(sum(c in 'aeiou' for c in 'education'))"),
    )
)
SIGNS = r"(?i:\b(?:run|execute|use|with|in) (?:some |a |the )?(?:python|code|program)\b)|运行代码"


def python() -> Tool:
    """The tool. Its code runs closed off from files and network, and still only with the user's permission."""
    description = "Runs a short Python program (standard library, no files, no network) and returns what it prints."
    return Tool("python", description, PARAMETERS, Risk.ACTS, _call, examples=EXAMPLES, signs=SIGNS)


def _call(arguments: Mapping[str, Any]) -> ToolResult:
    ran = run(str(arguments["code"]), limits=LIMITS)
    output = ran.stdout.strip()[:MOST_OUTPUT]
    if ran.why:
        last = ran.stderr.strip().splitlines()[-1:] or [ran.why]
        return ToolResult(f"The program failed: {last[0][:300]}", error=True)
    if not output:
        return ToolResult("The program printed nothing. It must print its result.", error=True)
    return ToolResult(output)
