"""Several accounts: in one daemon, and over several."""
