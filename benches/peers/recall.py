"""Searches the same rows in other stores: those that are installed, a line of JSON each."""

import hashlib
import json
import sqlite3
import statistics
import struct
import sys
import time
from pathlib import Path

DIMENSIONS = 384
FOUND = 40
BATCH = 5000


def main() -> None:
    rows, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True)
    questions = [line.strip() for line in sys.stdin if line.strip()]
    count = sum(1 for _ in told(rows))
    for name, peer, vectors, most in (
        ("SQLite FTS5", fts5, False, None),
        ("sqlite-vec", sqlite_vec, True, None),
        # A million rows would take it the better part of an hour to be given.
        ("ChromaDB", chromadb, True, 200_000),
    ):
        if most and count > most:
            continue
        began = time.perf_counter()
        try:
            search = peer(rows, folder)
        except ImportError:
            continue
        written = count / (time.perf_counter() - began)
        asked = [vector(question) if vectors else question for question in questions]
        times = []
        for question in asked:
            began = time.perf_counter()
            search(question)
            times.append((time.perf_counter() - began) * 1e6)
        times.sort()
        p50, p99 = statistics.median(times), times[int((len(times) - 1) * 0.99)]
        line = {"name": name, "vectors": vectors, "p50": p50, "p99": p99, "written": written}
        print(json.dumps(line), flush=True)


def told(rows):
    with rows.open() as lines:
        for line in lines:
            row = json.loads(line)
            yield row["id"], row["intent"] + " " + row["experience"]


def batches(rows):
    batch = []
    for row in told(rows):
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def vector(text):
    """A vector of the right size: what a store takes for it does not depend on what it means."""
    words = hashlib.shake_128(text.encode()).digest(DIMENSIONS)
    return [(byte - 127.5) / 128 for byte in words]


def fts5(rows, folder):
    base = sqlite3.connect(folder / "fts5.db")
    base.execute("CREATE VIRTUAL TABLE told USING fts5(id UNINDEXED, text, tokenize = 'porter unicode61')")
    for batch in batches(rows):
        base.executemany("INSERT INTO told VALUES (?, ?)", batch)
    base.commit()
    query = "SELECT id FROM told WHERE told MATCH ? ORDER BY bm25(told) LIMIT ?"
    return lambda asked: base.execute(query, (" OR ".join(asked.split()), FOUND)).fetchall()


def sqlite_vec(rows, folder):
    import sqlite_vec as extension

    base = sqlite3.connect(folder / "vec.db")
    base.enable_load_extension(True)
    extension.load(base)
    base.execute(f"CREATE VIRTUAL TABLE told USING vec0(vector float[{DIMENSIONS}])")
    packed = struct.Struct(f"{DIMENSIONS}f")
    for batch in batches(rows):
        vectors = [(packed.pack(*vector(text)),) for _, text in batch]
        base.executemany("INSERT INTO told (vector) VALUES (?)", vectors)
    base.commit()
    query = "SELECT rowid FROM told WHERE vector MATCH ? AND k = ?"
    return lambda asked: base.execute(query, (packed.pack(*asked), FOUND)).fetchall()


def chromadb(rows, folder):
    import chromadb as library

    client = library.PersistentClient(str(folder / "chroma"))
    told = client.create_collection("told", embedding_function=None)
    for batch in batches(rows):
        ids, texts = [name for name, _ in batch], [text for _, text in batch]
        told.add(ids=ids, embeddings=[vector(text) for text in texts], documents=texts)
    return lambda asked: told.query(query_embeddings=[asked], n_results=FOUND)


if __name__ == "__main__":
    main()
