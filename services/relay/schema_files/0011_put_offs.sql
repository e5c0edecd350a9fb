-- Messages that were put off since their last attempt: how often, and why the last time. A table of its own, as most
-- are never put off, and as processes of before have statements prepared that give all columns of relay.messages.
CREATE TABLE relay.put_offs (
  message_id text        COLLATE "C" PRIMARY KEY,
  count      integer     NOT NULL DEFAULT 1 CHECK (count > 0),
  error      text        NOT NULL,
  put_off_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX put_offs_age ON relay.put_offs (put_off_at);
