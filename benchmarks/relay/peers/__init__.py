"""One script a peer, run by the peers' own interpreter; they import nothing of ours but `job`."""
