-- One text for SQLite and PostgreSQL: only TEXT and BIGINT (times are milliseconds since 1970, UTC).
CREATE TABLE session (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    workspace TEXT NOT NULL,
    messages BIGINT NOT NULL,
    last TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX session_by_workspace ON session (workspace, updated);

-- The log of a session. The primary key is what keeps two writers from interleaving.
CREATE TABLE entry (
    session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    turn TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (session, seq)
);
