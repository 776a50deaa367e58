"""`python -m latticed.store URL`: brings one database up to date; the daemon that asks for it holds its lock."""

import sys

from sqlalchemy.engine import make_url

from latticed.store.faults import cannot_open, translate
from latticed.store.migrating import upgrade
from latticed.store.opening import database_path
from latticed.store.sqlite import writing_engine

if __name__ == "__main__":
    try:
        upgrade(writing_engine(make_url(sys.argv[1])))
    except Exception as error:
        fault = cannot_open(error, database_path(sys.argv[1])) or translate(error)
        print(fault.detail, file=sys.stderr)
        sys.exit(fault.exit_code)
