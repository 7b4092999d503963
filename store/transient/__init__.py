"""The transient store: what customers send and get, for a day at most."""
