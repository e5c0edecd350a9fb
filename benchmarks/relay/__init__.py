"""Compares the relay with its peers; benchmarks/bench_relay.py is the command."""
