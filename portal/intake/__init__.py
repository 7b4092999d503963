"""Taking a batch in, in every way that people have: a folder, a zip, a manifest, a place of theirs, addresses."""

from flows.receive import stamp_batch
from portal.intake.folder import Found, find_photos, upload

__all__ = ["Found", "find_photos", "stamp_batch", "upload"]
