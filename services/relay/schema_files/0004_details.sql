-- What the log shows of a message beyond its columns; and what an operator chose about a key's cooling.

-- Of the CREATED row only, encrypted as the message's own: headers, callbacks, retry expression, limits, what to redact.
ALTER TABLE relay.events ADD COLUMN details bytea;

ALTER TABLE relay.flow_keys ADD COLUMN pinned_cooling boolean NOT NULL DEFAULT false;

-- For the janitor's question whether anything lives under a key; the other states have their indexes already.
CREATE INDEX messages_flow_queued ON relay.messages (flow_key) WHERE state = 'queued' AND flow_key IS NOT NULL;
