"""The processes, one folder each. They share `tidings` and never import each other."""
