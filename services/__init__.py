"""One folder per process. The processes share `tidings` and never import each other."""
