"""The filter of system calls, executed here instruction by instruction, for both architectures."""

import struct

import pytest

from edgellm.sandbox.filter import ALLOW, ARCHITECTURES, CALLS, KILL, NOT_EXECUTABLE, REFUSE, X32, syscall_filter

PROT_READ, PROT_EXEC = 1, 4


def outcome(program: bytes, number: int, architecture: int, third_argument: int = 0) -> int:
    """What the kernel does with a call: classic BPF as linux/filter.h describes it."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, 0, 0, third_argument, 0, 0, 0)
    instructions = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        else:
            tests = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
            at += if_true if tests[code] else if_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
class TestFilter:
    def test_only_what_is_on_the_list_is_allowed(self, machine: str) -> None:
        column = list(ARCHITECTURES).index(machine)
        listed = {call[column] for call in (*CALLS.values(), *NOT_EXECUTABLE.values())}
        program = syscall_filter(machine)
        for number in range(600):
            expected = ALLOW if number in listed else REFUSE
            assert outcome(program, number, ARCHITECTURES[machine]) == expected, number

    def test_memory_does_not_become_executable(self, machine: str) -> None:
        column = list(ARCHITECTURES).index(machine)
        for call in NOT_EXECUTABLE.values():
            program = syscall_filter(machine)
            assert outcome(program, call[column], ARCHITECTURES[machine], PROT_READ) == ALLOW
            assert outcome(program, call[column], ARCHITECTURES[machine], PROT_READ | PROT_EXEC) == REFUSE

    def test_calls_of_another_architecture_kill(self, machine: str) -> None:
        program = syscall_filter(machine)
        assert outcome(program, 0, 0x40000003) == KILL
        assert outcome(program, X32 + 1, ARCHITECTURES[machine]) == KILL


def test_other_machines_have_no_filter() -> None:
    assert syscall_filter("riscv64") == b""
