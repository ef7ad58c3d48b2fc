"""What is drafted, how many tokens of it pay, and that llama-server drafts the same."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.models.local.tune_records import TunePlace
from edgellm.run.draft_costs import OTHER, ROWS, VNNI, DraftCosts
from edgellm.run.draft_hint import draft_hint
from edgellm.run.draft_lengths import MOST_SLOTS, cost, draft_lengths
from edgellm.run.draft_records import LEAST_OBSERVED, DraftRecords
from edgellm.run.drafts import MOST_DRAFT, MOST_ROWS, Drafter

HERE = TunePlace("stamp", "machine")


def text(characters: str) -> list[int]:
    return list(characters.encode())


def drafted(drafter: Drafter, most: int) -> str:
    return bytes(drafter.draft(most)).decode()


def test_a_draft_goes_on_as_the_longest_earlier_match_did() -> None:
    drafter = Drafter(text("one: cat. two: dog. the cat. and two"))
    assert drafted(drafter, 6) == ": dog."
    for token in text(": d"):
        drafter.feed(token)
    assert drafted(drafter, 4) == "og. "
    assert Drafter(text("abcabd abc ab")).draft(1) == text("c")  # "c ab" is longer than "ab"
    assert not Drafter(text("abcdef")).draft(4)
    assert not Drafter().draft(4) and not Drafter([7]).gains(4)


def test_a_draft_that_reaches_the_end_of_the_text_goes_on_from_itself() -> None:
    assert drafted(Drafter(text("ha ha")), 7) == " ha ha "


def test_hit_rates_follow_what_came_whether_it_was_drafted_or_not() -> None:
    known, doubted = Drafter(text("abababab")), Drafter(text("abababab"))
    assert Drafter(text("ab.cdab")).gains(3)[0] == pytest.approx(0.25)
    before = known.gains(1)[0]
    for token in text("ab" * 40):
        known.feed(token)
    for token in text("axbabybaabzb" * 8 + "abab"):  # what followed is rarely what follows
        doubted.feed(token)
    assert known.gains(1)[0] > 0.95 > before
    assert doubted.gains(1)[0] < known.gains(1)[0]
    assert all(0 < later - earlier <= 1 for earlier, later in zip(known.gains(15), known.gains(15)[1:], strict=False))


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 20))
def test_every_draft_follows_an_earlier_match(tokens: list[int], most: int) -> None:
    drafter = Drafter(tokens[:5])
    for token in tokens[5:]:
        drafter.feed(token)
    draft, gains = drafter.draft(most), drafter.gains(most)
    assert len(draft) in (0, most) and len(gains) <= min(most, MOST_DRAFT)
    if draft:
        written = tokens[-2:]
        places = [i for i in range(1, len(tokens) - 1) if tokens[i - 1 : i + 1] == written]
        assert any(tokens[place + 1] == draft[0] for place in places)


def test_lengths_are_those_that_pay() -> None:
    sure, unsure, times = [0.95**n * n for n in range(1, 16)], [0.3, 0.4, 0.45], DraftCosts(VNNI).times(300)
    (length,) = draft_lengths({0: sure}, times).values()
    rates = [(1 + gain) / times[1 + n] for n, gain in enumerate(sure, 1)]
    assert rates[length - 1] == max(rates)
    assert draft_lengths({0: unsure}, times) == {0: 0}
    assert draft_lengths({0: []}, times) == {0: 0}


def test_one_budget_for_all_slots() -> None:
    sure, times = [0.99 * n for n in range(1, 16)], DraftCosts(VNNI).times(0)
    for n_slots in range(2, 9):
        slots = dict.fromkeys(range(n_slots), sure)
        lengths = draft_lengths(slots, times)
        assert n_slots + sum(lengths.values()) <= MOST_ROWS
        plain, now = cost(dict.fromkeys(slots, 0), times) if n_slots <= MOST_SLOTS else 1.0, 1.0
        if any(lengths.values()):
            now = cost(lengths, times)
            assert (n_slots + sum(0.99 * length for length in lengths.values())) / now > n_slots / plain
        assert n_slots <= MOST_SLOTS or not any(lengths.values())
    assert any(draft_lengths({0: sure, 1: []}, times).values())


def test_the_engine_takes_another_turn_for_what_is_longer() -> None:
    times = [float(n) + 10 for n in range(MOST_ROWS + 1)]
    assert cost({0: 0, 1: 0}, times) == 12
    assert cost({0: 3, 1: 0}, times) == 12 + 13
    assert cost({0: 3, 1: 3}, times) == 18
    assert cost({0: 0, 2: 0}, times) == 11 + 11  # their numbers are not consecutive


def test_costs_grow_with_rows_and_context_and_learn_from_passes() -> None:
    costs = DraftCosts.careful("avx2")
    assert costs.table == OTHER and DraftCosts.careful("avx512-vnni").table == VNNI
    for n_context in (0, 700, 5000):
        times = costs.times(n_context)
        assert len(times) == MOST_ROWS + 1 and list(times[1:]) == sorted(times[1:])
    assert costs.times(2048) == costs.times(9000) and costs.times(1000)[8] > costs.times(0)[8]
    costs.observe(4, 100, 1.0)  # nothing is known of one row yet
    assert costs.table == OTHER and costs.n_observed == 0
    for _ in range(200):
        costs.observe(1, 100, 0.020)
        for rows in (2, 5, 9, 16):
            costs.observe(rows, 100, 0.020 * (1 + 0.1 * rows))
    assert costs.times(100)[2] == pytest.approx(1.2, abs=0.1)
    assert costs.times(100)[16] == pytest.approx(2.6, abs=0.2)
    assert costs.n_observed == 800


@pytest.mark.parametrize(
    "table",
    [((1, 2, 3, 4),), ((1, 2, 3, 4), (1, 2, 3)), ((0.5, 2, 3, 4), (1, 2, 3, 4)), ((1, 2, 3, 90), (1, 2, 3, 4))],
)  # fmt: skip
def test_a_table_that_makes_no_sense_is_refused(table: object) -> None:
    with pytest.raises(ValueError):
        DraftCosts(table)  # type: ignore[arg-type]


def test_costs_are_kept_for_each_file_and_number_of_threads(tmp_path: Path) -> None:
    model, path = tmp_path / "a.gguf", tmp_path / "cache" / "costs.json"
    model.write_bytes(b"weights")
    records = DraftRecords(path, HERE)
    first = records.costs(model, 2)
    records.keep_learnt(model, 2, first)
    assert not path.exists()
    known = DraftCosts(((1.1, 1.2, 1.3, 1.4), (1.5, 1.6, 1.7, 1.8)))
    known.n_observed = LEAST_OBSERVED
    records.keep_learnt(model, 2, known)
    records.keep(model, 4, DraftCosts(VNNI))
    assert records.costs(model, 2).table == known.table and records.costs(model, 4).table == VNNI
    assert records.costs(model, 8).table == first.table
    assert DraftRecords(path, TunePlace("another", "machine")).costs(model, 2).table == first.table
    model.write_bytes(b"other weights")
    assert records.costs(model, 2).table == first.table
    for damage in (b"", b"{", b"[]", b'{"%s": 7}' % str(model).encode(), b"\xff" * 50, b"[" * 100_000):
        path.write_bytes(damage)
        assert records.costs(model, 2).table == first.table
    model.unlink()
    assert records.costs(model, 2).table == first.table
    records.keep(model, 2, known)  # the file is gone: nothing to remember


def test_skeletons_of_schemas() -> None:
    person = '{"type": "object", "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {}}}}'
    compact, spaced = draft_hint(person).split("\n", 1)
    assert compact == '{"name":"","tags":["",""]}' and '"name": ""' in spaced
    looped = '{"$defs": {"a": {"type": "object", "properties": {"next": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"}'
    assert draft_hint(looped).startswith('{"next":{"next":')
    for nothing in (
        None,
        "",
        "7",
        "true",
        "{}",
        '{"type": "string"}',
        '{"$ref": 4}',
        "[" * 100_000,
        '{"$ref": "#/x/y"}',
    ):
        assert draft_hint(nothing) == ""


PROGRAM = """
#include "%s"
#include <cstdio>
int main() {
    edgellm_drafter drafters[2];
    edgellm_draft_costs costs;
    for (const char * wrong : { "", "1,2", "1,2,3,4,1,2,3,x", "1,2,3,4,1,2,3,4,5", "0,2,3,4,1,2,3,4", "nan,2,3" }) {
        if (costs.read(wrong)) { return 1; }
    }
    if (costs.read(nullptr) || !costs.read("%s")) { return 1; }
    std::vector<int32_t> first[2];
    int kind, which, token;
    while (std::scanf("%%d %%d %%d", &kind, &which, &token) == 3) {
        if (kind == 0) { first[which].push_back(token); }
        if (kind == 1) { drafters[which].begin({}, first[which]); }
        if (kind == 2) { drafters[which].feed(token); }
        if (kind == 3) { costs.observe(which, token, token*0.001); }
        if (kind == 4) {
            std::vector<edgellm_draft> drafts;
            for (int seq = 0; seq <= which; seq++) { drafts.push_back({ seq, drafters[seq].gains(15) }); }
            edgellm_draft_rule::choose(drafts, costs.times(token));
            for (const auto & each : drafts) {
                std::printf("%%d:", each.length);
                for (int32_t drafted : drafters[each.seq].draft(each.length)) { std::printf(" %%d", drafted); }
                std::printf("\\n");
            }
        }
    }
}
"""


def test_llama_server_drafts_the_same(tmp_path: Path, patches_directory: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++") or pytest.fail("a C++ compiler is needed")
    costs, random_numbers, lines, expected = DraftCosts(VNNI), random.Random(5), [], []
    source, program = tmp_path / "drafts.cpp", tmp_path / "drafts"
    source.write_text(PROGRAM % (patches_directory / "native/server/drafts.h", costs))
    subprocess.run([compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    words = [[random_numbers.randrange(50) for _ in range(random_numbers.randrange(2, 30))] for _ in range(6)]
    prompts = [[token for _ in range(9) for token in random_numbers.choice(words)] for _ in range(2)]
    for which, prompt in enumerate(prompts):
        lines += [f"0 {which} {token}" for token in prompt] + [f"1 {which} 0"]
    drafters = [Drafter(prompt) for prompt in prompts]
    for _ in range(120):
        for which, drafter in enumerate(drafters):
            word = random_numbers.choice(words)
            for token in word[: random_numbers.randrange(1, len(word))]:
                drafter.feed(token)
                lines.append(f"2 {which} {token}")
        rows, n_context = random_numbers.randrange(1, 17), random_numbers.randrange(10, 4000)
        costs.observe(rows, n_context, n_context * 0.001)
        last, depth = random_numbers.randrange(2), random_numbers.randrange(3000)
        lines += [f"3 {rows} {n_context}", f"4 {last} {depth}"]
        gains = {seq: drafters[seq].gains(15) for seq in range(last + 1)}
        for seq, length in draft_lengths(gains, costs.times(depth)).items():
            expected.append(" ".join([f"{length}:", *map(str, drafters[seq].draft(length))]))
    told = subprocess.run([program], input="\n".join(lines), text=True, capture_output=True, check=True).stdout
    assert told.splitlines() == expected
    assert sum(not line.startswith("0:") for line in expected) > 40


def test_rows_are_those_of_both_tables() -> None:
    assert len(VNNI[0]) == len(OTHER[1]) == len(ROWS) and ROWS[-1] == MOST_ROWS
