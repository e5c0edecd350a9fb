-- Dead letters are found by label: those of callbacks to be sent again when the receiver is back, all to be removed.
CREATE INDEX dead_letters_labels ON relay.dead_letters USING gin (labels);
