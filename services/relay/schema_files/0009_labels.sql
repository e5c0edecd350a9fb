-- Dead letters of callbacks are found by their label, to be sent again when the receiver is back.
CREATE INDEX dead_letters_labels ON relay.dead_letters USING gin (labels) WHERE kind <> 'message';
