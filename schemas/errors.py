"""Everything that can go wrong, each with a stable code and one sentence for people.

A message says what happened, to what, and what to do. It never holds a customer's file name, URL or pixel,
because messages end in logs.
"""

from __future__ import annotations

from typing import ClassVar


class BgbatchError(Exception):
    """The root. `code` is stable: programs may depend on it.

    `fault` says whose move it is: the user's, who asked for it; the operator's, who set it up; or ours.
    `retry_after`: seconds after which it is worth asking again, where that is known.
    """

    code: ClassVar[str] = "internal"
    fault: ClassVar[str] = "ours"
    retry_after: int | None = None

    def __init__(self, sentence: str = "", retry_after: int | None = None) -> None:
        super().__init__(sentence)
        if retry_after is not None:
            self.retry_after = retry_after


class UserError(BgbatchError):
    """Something that the caller can mend by asking differently."""

    code = "bad_request"
    fault = "user"


class NotDelivered(UserError):
    """A place that took some cutouts, and others not because of their names."""

    code = "not_delivered"


class BadOptions(UserError):
    """An option has a value that cannot be, or that this version cannot do yet."""

    code = "bad_options"


class UnknownIndustry(UserError):
    """An industry tag outside `schemas.industries`."""

    code = "unknown_industry"


class NotFound(UserError):
    """The account, batch, grant or receipt does not exist, or belongs to somebody else."""

    code = "not_found"


class AlreadyExists(UserError):
    """What there may be once: a name, a webhook's address, a place that is delivered into, a cutout's by its photo."""

    code = "already_exists"


class NothingToDo(UserError):
    """A batch without a single file."""

    code = "empty_batch"


class BatchNotSealed(UserError):
    """The upload of the batch was not completed, so it cannot be processed."""

    code = "not_sealed"


class PastDeadline(UserError):
    """The batch's purge time has come: nothing may be written for it any more."""

    code = "past_deadline"


class NotAllowed(UserError):
    """The person or key may not do this."""

    code = "not_allowed"


class KeyNeeded(NotAllowed):
    """No key came, or one that is unknown or revoked."""

    code = "key_needed"


class SignInNeeded(NotAllowed):
    """Nobody is signed in. The page offers to sign in instead."""

    code = "sign_in_needed"


class TooManyTries(UserError):
    """Somebody asks too often; after a while they may ask again."""

    code = "too_many_requests"


class LineTooLong(UserError):
    """The account, or all together, have so much waiting that nothing more is taken in now."""

    code = "line_too_long"


class WrongState(UserError):
    """The batch is not in a state in which this can be done: sealed already, still running, ended."""

    code = "wrong_state"


class KeyReused(UserError):
    """An idempotency key came with another request than the first time."""

    code = "idempotency_key_reused"


class StillAnswering(UserError):
    """The same request, or one that this one must wait for, is being answered just now. Asking again gets an answer."""

    code = "still_answering"
    retry_after = 1


class WrongOffset(UserError):
    """A part of a resumable upload does not begin where the upload stands."""

    code = "wrong_offset"


class WrongMediaType(UserError):
    """A part of a resumable upload that does not say that it is one, or a photo with something around it."""

    code = "wrong_media_type"


class BadManifest(UserError):
    """A manifest that cannot be used; each fault is named with its line and column, and nothing was started."""

    code = "bad_manifest"


class BadQuery(UserError):
    """A condition on candidates that cannot be understood, or that names no column of the lake."""

    code = "bad_query"


class CopyInTheWay(UserError):
    """The place for a copy of candidates holds something else."""

    code = "copy_in_the_way"


class SourceEmpty(UserError):
    """The source holds no photo, though it did before: more likely a wrong address than an empty catalog."""

    code = "source_empty"


class BadArchive(UserError):
    """A zip file that is damaged, or of a kind that is not taken.

    `entry`: the name at fault, for its owner's own terminal. It is in no sentence, because sentences end in logs.
    """

    code = "bad_archive"

    def __init__(self, sentence: str = "", entry: str = "") -> None:
        super().__init__(sentence)
        self.entry = entry


class StaleNotice(UserError):
    """The consent form showed another text than the one in force; nothing was recorded."""

    code = "stale_notice"


class LedgerBroken(BgbatchError):
    """The hash chain of the consent ledger or of the receipts does not verify."""

    code = "ledger_broken"


class StoreFault(BgbatchError):
    """An object store or folder refused a read, write or delete."""

    code = "store_fault"


class EngineFault(BgbatchError):
    """Prefect could not be started, or does not answer."""

    code = "engine_fault"


class MailFault(BgbatchError):
    """A letter could not be handed to the mail server."""

    code = "mail_fault"


class ProviderFault(BgbatchError):
    """The identity provider cannot be reached, or answers what cannot be believed."""

    code = "provider_fault"


class StillThere(StoreFault):
    """Objects that were to be deleted are still listed."""

    code = "still_there"


class BucketUnfit(BgbatchError):
    """The bucket would keep bytes longer than promised, or show them to others. The sentence says how to mend it."""

    code = "bucket_unfit"
    fault = "operator"


class RecordsNewer(BgbatchError):
    """A later version of bgbatch has the records by now. This one does not know what it would be changing in them."""

    code = "records_newer"
    fault = "operator"


class IntakeStopped(BgbatchError):
    """Nothing is taken in, because what is taken in might not be gone in time. Over HTTP: 503."""

    code = "intake_stopped"


class DeviceAbsent(BgbatchError):
    """The device asked for (say `cuda`) is not on this machine. It is never replaced by another one silently."""

    code = "device_absent"
    fault = "operator"


class DeviceBroken(BgbatchError):
    """The device does not calculate any more in this process, whatever it is asked: the process has to end."""

    code = "device_broken"


class NotCompiled(BgbatchError):
    """The network could not be compiled for the device, mostly for want of a C compiler or Python's headers."""

    code = "not_compiled"
    fault = "operator"


class WeightsInvalid(BgbatchError):
    """A weights file is missing, damaged, or made for another network."""

    code = "weights_invalid"
    fault = "operator"


class WorkersLost(BgbatchError):
    """No segmenter actor is alive any more and none could be started."""

    code = "workers_lost"


class VersionSkew(BgbatchError):
    """A driver and a segmenter actor are of different versions or settings: neither may guess what the other means."""

    code = "version_skew"


class ItemError(BgbatchError):
    """One item could not become a cutout. It costs its own result and nothing else."""

    code = "item_failed"


class SourceMissing(ItemError):
    """The manifest names a source that is not in the transient store."""

    code = "source_missing"


class DamagedInZip(ItemError):
    """A photo that cannot be unpacked whole from the zip file that it came in."""

    code = "damaged_in_zip"
    fault = "user"


class Unreadable(ItemError):
    """A photo that could not be read on the sender's own disk: no permission, gone by then, a fault of the disk."""

    code = "unreadable"
    fault = "user"


class FetchFailed(ItemError):
    """The address of a photo could not be read: no answer, an error, too slow, too many redirects."""

    code = "fetch_failed"
    fault = "user"


class UnsafeAddress(ItemError):
    """An address that this service does not call: private, loopback, link-local, not known, or not http(s)."""

    code = "unsafe_address"
    fault = "user"


class EmptyFile(ItemError):
    """A file of zero bytes."""

    code = "empty_file"
    fault = "user"


class NotAnImage(ItemError):
    """The bytes are of no image format that is read here, whatever the name says."""

    code = "not_an_image"
    fault = "user"


class UnsupportedImage(ItemError):
    """An image in a form that no decoder here reads, or reads right: 12-bit JPEG, TIFF with three floats a pixel."""

    code = "unsupported_image"
    fault = "user"


class DamagedImage(ItemError):
    """An image that ends too early or does not decode."""

    code = "damaged_image"
    fault = "user"


class FileTooLarge(ItemError):
    """More bytes than the limit."""

    code = "file_too_large"
    fault = "user"


class ImageTooLarge(ItemError):
    """More pixels than the limit, found in the header before memory is taken; or than the cutout's format can hold."""

    code = "image_too_large"
    fault = "user"


class BackgroundUnusable(ItemError):
    """The photo that bg_image names is missing, damaged or too large, so nothing could be put on it."""

    code = "background_unusable"
    fault = "user"


class OutOfMemory(ItemError):
    """The device ran out of memory on this item even alone."""

    code = "out_of_memory"


class WorkerLost(ItemError):
    """The worker process died each time that it had this item, alone."""

    code = "worker_lost"
