"""How processes speak Kafka: settings, topics, transactions, and the one loop that reads changes. Knows no event's meaning."""
