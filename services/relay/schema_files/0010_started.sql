-- `Tidings-Started-Callback` is among what is sealed, as its data may be a token, and so needs no column. A process of
-- before cannot claim a message that has it: this file keeps such a one from starting on this database.
COMMENT ON COLUMN relay.messages.sealed IS
  'encrypted JSON: headers, callbacks, and the options that no statement reads, since 0010 with started_callback';
