"""The records (SQLAlchemy, on SQLite or PostgreSQL): what is remembered longer than a batch lives."""
