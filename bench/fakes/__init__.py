"""Stand-ins for what no single machine has."""
