"""The peer of a durable message: the same two statements through Python's own `sqlite3`.

`append.py FILE` reads a count per line and answers with the seconds that so many commits took.
"""

import json
import sqlite3
import sys
import time

database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = FULL")
database.execute("CREATE TABLE session (id TEXT PRIMARY KEY, messages BIGINT, last TEXT)")
database.execute("CREATE TABLE entry (session TEXT, seq BIGINT, body TEXT, PRIMARY KEY (session, seq))")
database.execute("INSERT INTO session VALUES ('s', 0, '')")
message = {"role": "user", "content": [{"type": "text", "text": "How large is it? " * 10}]}
number = 0
for line in sys.stdin:
    began = time.perf_counter()
    for _ in range(int(line)):
        number += 1
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO entry VALUES ('s', ?, ?)", (number, json.dumps(message)))
        database.execute("UPDATE session SET messages = ?, last = ? WHERE id = 's'", (number, "How large"))
        database.execute("COMMIT")
    print(time.perf_counter() - began, flush=True)
