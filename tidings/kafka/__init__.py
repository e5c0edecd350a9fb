"""The Kafka code of all processes: settings, topics, transactions, and the loop that reads changes. Knows no event."""
