"""How fast the network is on this machine: our modes and others' ways, side by side."""
