"""The purge, its receipts, and what watches over both."""
