"""A change in, a completion event out, one Kafka transaction for both."""
