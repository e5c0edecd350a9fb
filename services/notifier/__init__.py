"""Turns each change into a completion event, in one Kafka transaction for offsets and events."""
