"""Where things lie, and for how long."""
