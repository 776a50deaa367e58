"""The journal in memory: keys, order, branches, what is made anew, and what has been told before."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latticed.engine.journal import Branch, Journal
from latticed.errors import JournalConflict
from latticed.models.records import LINE, StepRecord

quickly = settings(max_examples=60)

Program = list[Any]
"""Names of steps, and lists of programs, which are gathers."""

programs = st.recursive(
    st.lists(st.sampled_from("abc"), max_size=5),
    lambda inner: st.lists(st.sampled_from("abc") | st.lists(inner, min_size=1, max_size=3), max_size=5),
    max_leaves=12,
)


def recorded(n: int, branch: str, name: str, occurrence: int, attempt: int = 1, **more: Any) -> StepRecord:
    row = StepRecord(n, "step", branch, name, occurrence, "ok", attempt, 1, 0, 0, None, b"null", b"null")
    return row._replace(**more)


class Runner:
    """Carries out a program against a journal, its lines in an order of chance; what was asked for, with its record."""

    def __init__(self, journal: Journal, seed: int, attempt: int = 1, most: int | None = None) -> None:
        self.journal, self.random, self.attempt, self.left = journal, Random(seed), attempt, most
        self.asked: list[tuple[str, str, int, StepRecord | None]] = []
        self.told: list[tuple[str, int, bool]] = []

    def run(self, program: Program) -> None:
        lines = [self.line(self.journal.branch(""), program)]
        while lines:
            line = self.random.choice(lines)
            if (born := next(line, self)) is self:
                lines.remove(line)
            elif born:
                lines += born

    def line(self, branch: Branch, program: Program) -> Any:
        for place, part in enumerate(program):
            self.told.append((branch.path, place, branch.replays(self.attempt)))
            if isinstance(part, str):
                if not self.step(branch, part):
                    return
                yield []
            else:
                path = f"{branch.path}{branch.gathers}"
                branch.gathers += 1
                inner = [self.line(self.journal.branch(f"{path}.{i}/", branch), each) for i, each in enumerate(part)]
                ended = [False] * len(inner)
                yield [self.noted(each, ended, i) for i, each in enumerate(inner)]
                while not all(ended):
                    yield []
                if self.left == 0:
                    return

    def noted(self, line: Any, ended: list[bool], index: int) -> Any:
        yield from line
        ended[index] = True

    def step(self, branch: Branch, name: str) -> bool:
        if self.left == 0:
            return False
        occurrence, record = branch.next("step", name)
        self.asked.append((branch.path, name, occurrence, record))
        if record is None:
            self.journal.add(recorded(self.journal.number(), branch.path, name, occurrence, self.attempt))
            if self.left is not None:
                self.left -= 1
        return True


def first_run(program: Program, seed: int) -> list[StepRecord]:
    journal = Journal([])
    Runner(journal, seed).run(program)
    return sorted(journal.records.values())


@quickly
@given(programs, st.integers())
def test_keys_are_unique_and_occurrences_count_from_0_in_each_branch(program: Program, seed: int) -> None:
    journal = Journal([])
    runner = Runner(journal, seed)
    runner.run(program)
    keys = [(branch, name, occurrence) for branch, name, occurrence, _ in runner.asked]
    assert len(set(keys)) == len(keys)
    for branch, name, occurrence in keys:
        assert occurrence == 0 or (branch, name, occurrence - 1) in keys
    assert sorted(journal.records) == list(range(1, len(keys) + 1))


@quickly
@given(programs, st.integers(), st.integers())
def test_entered_again_each_is_given_its_own_record_whatever_runs_first(program: Program, one: int, two: int) -> None:
    records = first_run(program, one)
    runner = Runner(Journal(records), two)
    runner.run(program)
    assert len(runner.asked) == len(records)
    for branch, name, occurrence, record in runner.asked:
        assert record is not None
        assert (record.branch, record.name, record.occurrence) == (branch, name, occurrence)


@quickly
@given(programs, st.integers(), st.integers(), st.lists(st.integers(0, 4), max_size=6))
def test_after_any_number_of_crashes_nothing_recorded_is_made_again(
    program: Program, one: int, two: int, lives: list[int]
) -> None:
    records: list[StepRecord] = []
    for number, most in enumerate([*lives, None]):
        journal = Journal(records)
        runner = Runner(journal, one + two * number, most=most)
        runner.run(program)
        again = [record for *_, record in runner.asked if record is not None]
        assert set(again) <= set(records)
        records = sorted(journal.records.values())
    keys = {(record.branch, record.name, record.occurrence) for record in records}
    assert len(keys) == len(records) == len(first_run(program, one))


@quickly
@given(programs.filter(lambda program: bool(program) and isinstance(program[0], str)), st.integers(), st.data())
def test_another_order_is_a_conflict_and_leaves_no_trace(program: Program, seed: int, data: st.DataObject) -> None:
    records = first_run(program, seed)
    main = [record for record in records if record.branch == ""]
    branch = Journal(records).branch("")
    for place in range(data.draw(st.integers(0, len(main) - 1))):
        branch.next("step", main[place].name)
    due = main[branch.cursor]
    with pytest.raises(JournalConflict) as conflict:
        branch.next("step", "other")
    assert "'other'" in conflict.value.message
    assert repr(due.name) in conflict.value.message
    with pytest.raises(JournalConflict):
        branch.next("sleep", due.name)
    for record in main[branch.cursor :]:
        assert branch.next("step", record.name) == (record.occurrence, record)


@quickly
@given(programs, st.integers(), st.integers())
def test_what_was_told_before_the_last_record_is_not_told_again(program: Program, one: int, two: int) -> None:
    records = first_run(program, one)
    runner = Runner(Journal(records), two)
    runner.run(program)

    def has_steps(parts: Program) -> bool:
        return any(isinstance(part, str) or any(has_steps(line) for line in part) for part in parts)

    for path, place, replays in runner.told:
        if path == "":
            assert replays == has_steps(program[place:])
    later = Runner(Journal(records), two, attempt=2)
    later.run(program)
    assert not any(replays for *_, replays in later.told), "another attempt tells for itself"


@quickly
@given(programs, programs, st.integers(), st.data())
def test_what_is_made_anew_may_be_followed_by_something_else(
    before: Program, after: Program, seed: int, data: st.DataObject
) -> None:
    """In a second attempt a failed step does well and the code goes another way; entered once more it finds it."""
    first = first_run(["fails", *before], seed)
    first[0] = first[0]._replace(status="failed", error=b"{}")
    journal = Journal(first)

    def second_attempt(journal: Journal, seed: int) -> list[StepRecord | None]:
        branch = journal.branch("")
        _, failed = branch.next("step", "fails")
        assert failed is not None
        if failed.attempt == 1:
            branch.loosen()
            journal.add(failed._replace(status="ok", attempt=2))
        runner = Runner(journal, seed, attempt=2)
        rest = [runner.line(branch, after)]
        while rest:
            line = runner.random.choice(rest)
            if (born := next(line, None)) is None:
                rest.remove(line)
            else:
                rest += born
        return [record for *_, record in runner.asked]

    second_attempt(journal, seed)
    records = sorted(journal.records.values())
    again = second_attempt(Journal(records), data.draw(st.integers()))
    assert None not in again
    assert len(again) == len(first_run(after, 0))


def test_a_line_that_has_ended_has_told_all_it_had_to_tell() -> None:
    begun = [recorded(1, "0.0/", "a", 0), recorded(2, "0.2/", "a", 0)]
    ends = [recorded(3 + line, f"0.{line}/", "", 0, kind=LINE) for line in (0, 1)]
    for records in (begun, begun + ends):
        journal = Journal(records)
        main = journal.branch("")
        assert main.replays(1)
        main.gathers += 1
        assert not main.replays(1)
        with_step, without = (journal.branch(f"0.{line}/", main) for line in (0, 1))
        assert with_step.replays(1)
        with_step.next("step", "a")
        assert with_step.replays(1) == without.replays(1) == (records != begun)
        assert not with_step.replays(2)
        assert without.next("step", "b") == (0, None), "in another attempt it may ask for something"
        assert journal.number() == len(records) + 1


def test_what_is_told_after_a_record_that_was_made_anew_is_not_told_again() -> None:
    journal = Journal([recorded(1, "", "a", 0, attempt=2), recorded(2, "", "b", 0), recorded(3, "", "c", 0, attempt=2)])
    main = journal.branch("")
    main.next("step", "a")
    assert not main.ordered
    assert main.replays(2)
    main.next("step", "c")
    assert not main.replays(2)


def test_a_record_takes_the_place_of_the_one_with_its_number() -> None:
    journal = Journal([recorded(1, "", "a", 0, status="started"), recorded(2, "", "b", 0)])
    journal.add(recorded(1, "", "a", 0))
    branch = journal.branch("")
    assert [branch.next("step", name)[1].status for name in "ab"] == ["ok", "ok"]  # type: ignore[union-attr]
    assert journal.number() == 3
