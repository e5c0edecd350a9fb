"""The documents, and in tools/ what makes some of them."""
