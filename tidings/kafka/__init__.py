"""The Kafka code of all processes: settings, topics, transactions, and the loop that reads changes. Independent of the
content of events.
"""
