"""Objects by key, in a folder or on S3: kept, listed, and deleted until nothing is left."""
