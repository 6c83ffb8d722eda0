-- Work that goes on by itself. `task`, `schedule` and `deliver` are JSON; `next` is 0 where there is no next time.
CREATE TABLE job (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    workspace TEXT NOT NULL,
    session TEXT NOT NULL,
    task TEXT NOT NULL,
    schedule TEXT NOT NULL,
    overlap TEXT NOT NULL,
    deliver TEXT NOT NULL,
    state TEXT NOT NULL,
    next BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX job_by_next ON job (workspace, state, next);

-- What became of a job, time by time. `owner` is whose process it is in, `wish` is 1 once somebody wants it to end,
-- `again` is when it is to be delivered, `unread` the session it was added to, until a face has shown it there.
CREATE TABLE job_run (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    workspace TEXT NOT NULL,
    session TEXT NOT NULL,
    state TEXT NOT NULL,
    due BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    owner TEXT NOT NULL,
    wish BIGINT NOT NULL,
    began BIGINT NOT NULL,
    ended BIGINT NOT NULL,
    output TEXT NOT NULL,
    error TEXT NOT NULL,
    tokens BIGINT NOT NULL,
    delivery TEXT NOT NULL,
    tries BIGINT NOT NULL,
    again BIGINT NOT NULL,
    refusal TEXT NOT NULL,
    unread TEXT NOT NULL
);
CREATE INDEX job_run_by_job ON job_run (job, due);
CREATE INDEX job_run_by_state ON job_run (workspace, state);
CREATE INDEX job_run_by_unread ON job_run (unread);
CREATE INDEX job_run_by_delivery ON job_run (workspace, delivery, again);

-- Tokens that jobs have used, day by day.
CREATE TABLE job_day (
    day TEXT PRIMARY KEY,
    tokens BIGINT NOT NULL
);
