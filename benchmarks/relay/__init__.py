"""The relay beside its peers: one noun a module, run by benchmarks/bench_relay.py."""
