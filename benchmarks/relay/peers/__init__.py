"""One script per peer, run by the peers' interpreters. Of this repository they import only `job`."""
