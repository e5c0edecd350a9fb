-- The facts about a message that the log shows besides its columns, and the operator's choice for a key's cooling.

-- Only in the CREATED row, encrypted like the message's own: headers, callbacks, retry expression, limits, redaction.
ALTER TABLE relay.events ADD COLUMN details bytea;

ALTER TABLE relay.flow_keys ADD COLUMN pinned_cooling boolean NOT NULL DEFAULT false;

-- For the janitor's check whether a key has live messages. The other states have their indexes already.
CREATE INDEX messages_flow_queued ON relay.messages (flow_key) WHERE state = 'queued' AND flow_key IS NOT NULL;
