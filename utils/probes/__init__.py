"""Linear probes: what a layer holds, and what the network uses."""
