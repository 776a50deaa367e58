"""A run's journal in memory: what is recorded, where each branch stands, and what it asks for next.

Pure: it reads and writes nothing. The key of a record is (branch path, kind and name, occurrence). A branch that is
entered again must ask for its records in the order in which they were made. A record that is made anew, such as a
failed one in another attempt, frees the rest of its branch from the order, since the code may now go another way.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from latticed.errors import JournalConflict
from latticed.models.records import LINE, StepRecord

ASIDE = "~"
"""How the paths of branches begin that are no line of execution: what hooks answered."""
NONE_BEGUN: Mapping[int, int] = MappingProxyType({})


class Branch:
    """One line of execution: the main one, or one of a gather's."""

    __slots__ = (
        "_begun", "_ended", "_left", "_occurrences", "_remade", "_seen", "busy", "closed", "cursor", "gathers",
        "known", "ordered", "parent", "path", "records", "said", "suspended",
    )  # fmt: skip

    def __init__(
        self, path: str, records: list[StepRecord], parent: "Branch | None" = None,
        remade: frozenset[int] = frozenset(), begun: Mapping[int, int] = NONE_BEGUN, ended: int | None = None,
    ) -> None:  # fmt: skip
        self.path = path
        self.records = records
        self.parent = parent
        self.cursor = 0
        self.ordered: bool = parent is None or parent.ordered
        self.known: dict[tuple[str, str, int], StepRecord] = {}
        self.busy: str | None = None
        """What is under way here; nothing else may be then."""
        self.closed = False
        """Whether its gather is over, so that what still runs of it must end."""
        self.said = False
        """Whether it has emitted events since its last record."""
        self.suspended = False
        """Whether it was told to leave and will be entered again, so that it does not end now, whatever it does."""
        self.gathers = 0
        self._occurrences: dict[tuple[str, str], int] = {}
        self._remade = remade
        self._begun = begun
        self._ended = ended
        """The attempt in which it ended with all that it said on disk."""
        self._seen: set[int] = set()
        self._left: set[int] | None = None
        """What this attempt has recorded here and has not asked for yet; known once somebody wants to."""
        if not self.ordered:
            self.loosen()

    def next(self, kind: str, name: str) -> tuple[int, StepRecord | None]:
        """The occurrence of what is asked for, and its record if there is one.

        Raises:
            JournalConflict: another record is next.
        """
        occurrence = self._occurrences.get((kind, name), 0)
        record = self._find(kind, name, occurrence)
        self._occurrences[kind, name] = occurrence + 1
        if record is not None:
            self._seen.add(record.n)
            if self._left is not None:
                self._left.discard(record.n)
        return occurrence, record

    def _find(self, kind: str, name: str, occurrence: int) -> StepRecord | None:
        if not self.ordered:
            return self.known.get((kind, name, occurrence))
        if self.cursor >= len(self.records):
            return None
        record = self.records[self.cursor]
        if (record.kind, record.name, record.occurrence) != (kind, name, occurrence):
            raise JournalConflict(
                f"the run asked for {kind} {name!r} (number {occurrence + 1} of that name) where its journal has "
                f"{record.kind} {record.name!r} (number {record.occurrence + 1}); a run must ask for its steps in "
                "the same order each time"
            )
        self.cursor += 1
        if record.n in self._remade:
            self.loosen()
        return record

    def suspend(self) -> None:
        """It was told to leave, and so was what has begun it."""
        branch: Branch | None = self
        while branch is not None:
            branch.suspended = True
            branch = branch.parent

    def loosen(self) -> None:
        """A record is being made anew: what follows need not follow the old order."""
        self.ordered = False
        self.known = {(record.kind, record.name, record.occurrence): record for record in self.records}

    def replays(self, attempt: int) -> bool:
        """Whether what happens here now has happened before in this attempt: a later record of it is there."""
        if self._left is None:
            self._left = {record.n for record in self.records if record.attempt == attempt} - self._seen
        if self._ended == attempt or self._left:
            return True
        if any(gather >= self.gathers and latest == attempt for gather, latest in self._begun.items()):
            return True
        return self.parent is not None and self.parent.replays(attempt)


class Journal:
    """All records of a run, by branch."""

    def __init__(self, records: Iterable[StepRecord]) -> None:
        self.records: dict[int, StepRecord] = {}
        self._branches: dict[str, list[StepRecord]] = {}
        self._ended: dict[str, StepRecord] = {}
        self._remade: frozenset[int] = frozenset()
        self._begun: dict[str, dict[int, int]] = {}
        self._last = 0
        for record in records:
            self.add(record)

    def add(self, record: StepRecord) -> None:
        """Takes in a record that is on disk, in the place of an older one with its number."""
        self._last = max(self._last, record.n)
        if record.kind == LINE:
            self._ended[record.branch] = record
            return
        old = self.records.get(record.n)
        branch = self._branches.setdefault(record.branch, [])
        if old is None:
            branch.append(record)
        else:
            branch[branch.index(old)] = record
        self.records[record.n] = record

    def number(self) -> int:
        """The number of the next record."""
        self._last += 1
        return self._last

    def ended(self, path: str) -> StepRecord | None:
        """What says that a branch has ended."""
        return self._ended.get(path)

    def aside(self, path: str) -> Sequence[StepRecord]:
        """What hooks answered about one thing, in order."""
        return self._branches.get(path, ())

    def branch(self, path: str, parent: Branch | None = None) -> Branch:
        """A branch at its beginning; it keeps its own view of what was recorded before."""
        if parent is None:
            self._survey()
        records, begun, ended = self._branches.get(path, ()), self._begun.get(path, NONE_BEGUN), self.ended(path)
        return Branch(path, list(records), parent, self._remade, begun, None if ended is None else ended.attempt)

    def _survey(self) -> None:
        """Finds out which records were made anew, since what was recorded after them in an earlier attempt may be off
        the way; and in which attempt each gather of each branch was last at work."""
        remade = set()
        earliest = None
        for n in sorted(self.records, reverse=True):
            attempt = self.records[n].attempt
            if earliest is not None and attempt > earliest:
                remade.add(n)
            earliest = attempt if earliest is None else min(attempt, earliest)
        self._remade = frozenset(remade)
        self._begun = {}
        for path in self._branches.keys() | self._ended.keys():
            if path.startswith(ASIDE):
                continue
            mine = [*self._branches.get(path, ()), *filter(None, (self.ended(path),))]
            latest = max(record.attempt for record in mine)
            parent = ""
            for line in path.split("/")[:-1]:
                gather = int(line.partition(".")[0])
                begun = self._begun.setdefault(parent, {})
                begun[gather] = max(latest, begun.get(gather, 0))
                parent += f"{line}/"
