"""Taking a batch in, in every way that people have: a folder, a zip, a manifest, a place of theirs, addresses."""
