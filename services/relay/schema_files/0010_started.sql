-- `Tidings-Started-Callback` is a sealed option, as its data may be a token, and so needs no column. An older process
-- cannot claim a message that has it: this file prevents such a process from starting on this database.
COMMENT ON COLUMN relay.messages.sealed IS
  'encrypted JSON: headers, callbacks, and the options that no statement reads, since 0010 with started_callback';
