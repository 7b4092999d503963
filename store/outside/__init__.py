"""Places that are not ours: which of them an account may name, what lies there, and how it is read."""
