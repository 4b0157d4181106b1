"""What the daemon compiles for the gate to judge by: the one format they share."""
