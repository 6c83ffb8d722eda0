-- What models have cost, day by day; `purse` is who shares it: talk (people and programs) or jobs. `cost` is in millionths
-- of a dollar; `unpriced` are those of the tokens whose price was not known.
CREATE TABLE spent (
    purse TEXT NOT NULL,
    day TEXT NOT NULL,
    tokens BIGINT NOT NULL,
    cost BIGINT NOT NULL,
    unpriced BIGINT NOT NULL,
    PRIMARY KEY (purse, day)
);
INSERT INTO spent (purse, day, tokens, cost, unpriced) SELECT 'jobs', day, tokens, 0, tokens FROM job_day;
DROP TABLE job_day;
