"""REST: submissions, callbacks, results. Writes rows; never calls a provider, the relay or Kafka."""
