-- Mail of chat networks. `account` names the bot, as in "telegram:123456"; times are milliseconds, 0 is never.

-- How far a network's updates were read, and when it last answered.
CREATE TABLE mail_cursor (
    account TEXT PRIMARY KEY,
    next BIGINT NOT NULL,
    heard BIGINT NOT NULL
);

-- What came in. An update is here before the network is told that it has arrived, and stays for a while
-- after it was answered, so that one that is sent twice is known. `lane` is the conversation, `bundle` what
-- was sent together, `place` the numbering that `message` belongs to.
CREATE TABLE mail_in (
    account TEXT NOT NULL,
    id BIGINT NOT NULL,
    lane TEXT NOT NULL,
    bundle TEXT NOT NULL,
    place TEXT NOT NULL,
    message BIGINT NOT NULL,
    turn TEXT NOT NULL,
    body TEXT NOT NULL,
    created BIGINT NOT NULL,
    done BIGINT NOT NULL,
    PRIMARY KEY (account, id)
);
CREATE INDEX mail_in_waiting ON mail_in (account, done, lane, id);

-- What goes out, in the order of `seq` in each chat. `state` is waits, sending (it may have arrived), sent or
-- failed. `after` is the newest message that was known in its place before it was sent.
CREATE TABLE mail_out (
    account TEXT NOT NULL,
    id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    chat BIGINT NOT NULL,
    place TEXT NOT NULL,
    turn TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL,
    after BIGINT NOT NULL,
    message BIGINT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (account, id)
);
CREATE INDEX mail_out_waiting ON mail_out (account, state, chat, seq);
CREATE INDEX mail_out_message ON mail_out (account, chat, message);

-- Who may talk: people by their id, groups by theirs, which is negative.
CREATE TABLE mail_contact (
    account TEXT NOT NULL,
    id BIGINT NOT NULL,
    name TEXT NOT NULL,
    admin BIGINT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (account, id)
);

-- Codes that let somebody in, once. Only their SHA-256 is kept.
CREATE TABLE mail_code (
    digest TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    admin BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

-- The session that a conversation is in now, where it is not the first.
CREATE TABLE mail_lane (
    account TEXT NOT NULL,
    lane TEXT NOT NULL,
    session TEXT NOT NULL,
    PRIMARY KEY (account, lane)
);
