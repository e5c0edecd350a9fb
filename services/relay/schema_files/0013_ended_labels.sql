-- Ended messages are found by label, as their contents may have to be removed. A message enters the index once, at its
-- end; the few with several labels enter the second index. Both are dropped with the partition, minutes later.
CREATE INDEX messages_ended_label ON relay.messages (label) WHERE label IS NOT NULL AND ended_at IS NOT NULL;
CREATE INDEX messages_ended_labels ON relay.messages USING gin (labels)
  WHERE cardinality(labels) > 1 AND ended_at IS NOT NULL;
