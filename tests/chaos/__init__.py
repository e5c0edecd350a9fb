"""Load and faults on the whole native system at random moments, and a ledger of what must hold when all is quiet again."""
