"""The one place that asks which database it is: set-valued statements and what differs around them."""

import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    Table,
    Text,
    Update,
    bindparam,
    func,
    literal_column,
    select,
    text,
    true,
)
from sqlalchemy.dialects import sqlite

SIZES = (32, 16, 8, 4, 3, 2, 1)
"""Numbers of rows that a set-valued statement is prepared for; other numbers are made of these. Few and none large:
the driver keeps what it has prepared, a kilobyte or two a row, and to prepare one takes longer than to run it."""

_TAKEN = [0, *(next(size for size in SIZES if size <= left) for left in range(1, SIZES[0]))]
"""How many of so many rows that are left the next statement takes."""

_ROWS = "__ROWS__"


class SetStatement:
    """One statement for a whole set of rows, which are its only parameters.

    One call into SQLite runs it, so the interpreter's lock is given up once and not once a row as `executemany` does
    (which convoys with the event loop), and `VALUES` costs a quarter of `json_each` a row
    (docs/decisions/0001-set-valued-statements.md).
    """

    def __init__(self, template: str, width: int, alone: str | None = None) -> None:
        self._template = template
        self._row = f"({','.join('?' * width)})"
        self._texts: dict[int, str] = {}
        self._alone = alone
        """The same for a single row, with numbered parameters, where that is a simpler statement."""
        self._taken = max((int(n) for n in re.findall(r"\?(\d+)", alone or "")), default=0)

    def execute(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Runs it for all `rows`; what it returns, in no order."""
        driver: Any = connection.connection.driver_connection
        if len(rows) == 1 and self._alone is not None:
            alone: list[Any] = driver.execute(self._alone, rows[0][: self._taken]).fetchall()
            return alone
        found: list[Any] = []
        start = 0
        while (left := len(rows) - start) > 0:
            size = _TAKEN[left] if left < len(_TAKEN) else SIZES[0]
            sql = self._texts.get(size)
            if sql is None:
                sql = self._texts[size] = self._template.replace(_ROWS, ",".join([self._row] * size))
            # The driver's own call: what Core does around a statement is a tenth of a step's time here.
            cursor = driver.execute(sql, tuple(chain.from_iterable(rows[start : start + size])))
            if cursor.description is not None:
                found += cursor.fetchall()
            start += size
        return found


class Prepared:
    """A query that is compiled once, with its parameters by name; for reads on the hot path."""

    def __init__(self, statement: Select[Any]) -> None:
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="named"))
        self.text = str(compiled)
        self.constants = {name: value for name, value in compiled.params.items() if value is not None}
        row: Any = namedtuple("Row", [column.name for column in statement.selected_columns])  # type: ignore[misc]  # its names come from the statement
        self._make = row._make

    def rows(self, found: Iterable[Sequence[Any]]) -> list[Any]:
        """What the driver found, as rows whose columns have names."""
        return [self._make(each) for each in found]


def insert_statement(table: Table, columns: Iterable[str], *, replace: bool = False) -> SetStatement:
    """Inserts rows given in the order of `columns`; with `replace` a row of the same key makes way."""
    names = list(columns)
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    quoted = ", ".join(f'"{name}"' for name in names)
    return SetStatement(f"{verb} INTO {table.name} ({quoted}) VALUES {_ROWS}", len(names))


def upsert_statement(table: Table, key: Sequence[str], columns: Sequence[str]) -> SetStatement:
    """Inserts rows given in the order of `key` and `columns`; where the first of `key` is there, only `columns`
    change."""
    names = ", ".join(f'"{name}"' for name in (*key, *columns))
    changed = ", ".join(f'"{name}" = excluded."{name}"' for name in columns)
    template = f'INSERT INTO {table.name} ({names}) VALUES {_ROWS} ON CONFLICT ("{key[0]}") DO UPDATE SET {changed}'
    return SetStatement(template, len(key) + len(columns))


Row = Mapping[str, ColumnElement[Any]]


def update_statement(columns: Sequence[str], build: Callable[[Row], Update]) -> SetStatement:
    """What `build` makes of a row of these columns, ready to be run for any number of rows; it has no other parameters.
    Of one row alone it needs no table of rows, which makes it a third cheaper."""
    picked: list[ColumnElement[Any]] = [literal_column(f"column{i}").label(name) for i, name in enumerate(columns, 1)]
    many = select(*picked).select_from(text(f"(VALUES {_ROWS})")).subquery("r")
    alone: Row = {name: literal_column(f"?{i}") for i, name in enumerate(columns, 1)}

    def compiled(row: Row) -> str:
        return str(build(row).compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))

    return SetStatement(compiled(dict(many.c.items())), len(columns), compiled(alone))


@lru_cache
def id_set(parameter: str = "ids") -> Any:
    """A set of ids as one parameter (a JSON array), to be used as `column.in_(id_set())`."""
    each = func.json_each(bindparam(parameter, type_=Text())).table_valued("value", name="ids_each")
    return select(each.c.value)


def json_has(column: ColumnElement[Any], item: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a JSON array in `column` holds the text `item`."""
    each = func.json_each(column).table_valued("value", name="held")
    return select(true()).select_from(each).where(each.c.value == item).exists()


def json_text(column: ColumnElement[Any], key: str) -> ColumnElement[str]:
    """The text under `key` of a JSON object in `column`; NULL if there is none."""
    return func.json_extract(column, '$."' + key.replace('"', "") + '"')


def literal(condition: str) -> ColumnElement[bool]:
    """A condition of our own making, spelled out, so that it matches the condition of a partial index."""
    return literal_column(condition)


def json(value: Any) -> str:
    """JSON text of a value."""
    return orjson.dumps(value).decode()


def json_list(values: Iterable[str]) -> str:
    """The parameter of `id_set`."""
    return orjson.dumps(list(values)).decode()


def value(text: str) -> ColumnElement[str]:
    """A text as a bound parameter."""
    return bindparam(None, text, type_=Text(), unique=True)


def whole(name: str) -> Any:
    """A named parameter that is a whole number, given at execution."""
    return bindparam(name, type_=BigInteger())


def parameter(name: str) -> Any:
    """A named text parameter, given at execution."""
    return bindparam(name, type_=Text())


def number(name: str) -> Any:
    """A named whole number, given at execution."""
    return bindparam(name, type_=Integer())
