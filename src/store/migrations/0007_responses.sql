-- Turns that programs ask for by the name of OpenAI's responses. `id` is that of the turn, `body` what the
-- request said of it; what was answered is in the log of the session.
CREATE TABLE response (
    id TEXT PRIMARY KEY,
    session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    body TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE INDEX response_by_session ON response (session);
