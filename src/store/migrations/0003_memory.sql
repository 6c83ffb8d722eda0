-- What memory did in a turn. `tick` counts the turns: a value fades with those it was not used in.
CREATE TABLE memory_turn (
    turn TEXT PRIMARY KEY,
    session TEXT NOT NULL,
    asked TEXT NOT NULL,
    tick BIGINT NOT NULL,
    undone BIGINT NOT NULL,
    created BIGINT NOT NULL
);
CREATE INDEX memory_turn_by_session ON memory_turn (session, tick);
CREATE INDEX memory_turn_by_tick ON memory_turn (tick);

-- What was really in the prompt of a turn; numbers in millionths.
CREATE TABLE memory_shown (
    turn TEXT NOT NULL,
    episode TEXT NOT NULL,
    place BIGINT NOT NULL,
    similarity BIGINT NOT NULL,
    value BIGINT NOT NULL,
    score BIGINT NOT NULL,
    PRIMARY KEY (turn, episode)
);
CREATE INDEX memory_shown_by_episode ON memory_shown (episode);

-- What a turn earned, by who says so; only ever added to.
CREATE TABLE memory_reward (
    turn TEXT NOT NULL,
    source TEXT NOT NULL,
    number BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (turn, source, number)
);

-- Episodes on their way to their own table; kept here until they are there.
CREATE TABLE memory_pending (
    episode TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    created BIGINT NOT NULL
);
