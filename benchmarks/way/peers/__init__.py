"""The endpoint of each peer, run by the peers' own interpreter."""
