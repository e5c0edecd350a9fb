"""How many bytes and places each use may take. They are shared so that no single name can take all of them. No I/O."""
