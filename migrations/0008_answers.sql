-- depends: 0005_grants
-- What is known of an attempt without an answer, and how an answer is encoded: its bytes are stored as they came.
SET ROLE tidings_owner;

ALTER TABLE tidings.attempts ADD COLUMN fate text CHECK (fate IN ('not sent', 'unknown'));  -- null: there was an answer
ALTER TABLE tidings.results ADD COLUMN content_encoding text;                                -- null: identity

RESET ROLE;
