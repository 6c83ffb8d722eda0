-- Turns that somebody may come back to. `asked` is the digest of the key by which its caller asks for it again, or its id;
-- `digest` that of what was asked. `state` is open or over; `owner` plays it, if anybody does; `tries` counts how often it
-- began: from the first time on its message is in the log of its session.
CREATE TABLE run (
    id TEXT PRIMARY KEY,
    session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    asked TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,
    tries BIGINT NOT NULL,
    waiting TEXT NOT NULL,
    result TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX run_by_session ON run (session, state);
CREATE INDEX run_by_state ON run (state, updated);

-- What happened in a run: some events in a row, as a JSON array; `last` is the number of the last one.
CREATE TABLE run_event (
    run TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    last BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (run, last)
);

-- What a person said to a run that another process plays: an answer to a call, or, without a call, that it is to end.
CREATE TABLE run_word (
    run TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    call TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (run, call)
);
