-- Ended messages are found by label, as their contents are to be removed. A message enters once, at its end; those of
-- several labels, which are few, by the second index. Both go with the partition, minutes later.
CREATE INDEX messages_ended_label ON relay.messages (label) WHERE label IS NOT NULL AND ended_at IS NOT NULL;
CREATE INDEX messages_ended_labels ON relay.messages USING gin (labels)
  WHERE cardinality(labels) > 1 AND ended_at IS NOT NULL;
