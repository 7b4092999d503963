"""Where things lie: the transient store and the lake's objects (fsspec), and the records (SQLAlchemy)."""
