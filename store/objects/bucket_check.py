"""Looks at a bucket before the first byte goes into it, and refuses one that would break the promise.

Versions, locks, replicas and soft delete keep bytes that were deleted; public access shows them to others. What cannot
be read counts against the bucket: any doubt is a no. Judging (`judge`) is pure; `check_bucket` asks the server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import BucketUnfit, StoreFault
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore
from store.objects.storage import error_code
from store.settings import Settings

if TYPE_CHECKING:
    from store.objects.s3 import S3

_NONE_SET = {
    "NoSuchBucketPolicy",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchLifecycleConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "ReplicationConfigurationNotFoundError",
}
_NOT_OFFERED = {"NotImplemented", "MethodNotAllowed", "XNotImplemented", "InvalidRequest"}
_EVERYBODY = ("/groups/global/AllUsers", "/groups/global/AuthenticatedUsers")


@dataclass(frozen=True)
class BucketFacts:
    """What the server said. None: it would not say."""

    versioning: str | None = ""
    mfa_delete: bool = False
    object_lock: bool | None = False
    replication: bool | None = False
    public: bool | None = False
    is_google: bool = False


def judge(facts: BucketFacts, *, allow_versioned: bool, soft_delete_off: bool) -> list[str]:
    """Why a bucket with these facts would break the promise, if it would, and how to mend each reason."""
    problems = []
    unread = [name for name in ("versioning", "object_lock", "replication", "public") if getattr(facts, name) is None]
    if unread:
        names = ", ".join(unread)
        problems.append(
            f"its configuration cannot be read ({names}): allow this key s3:GetBucketVersioning, "
            "s3:GetBucketObjectLockConfiguration, s3:GetReplicationConfiguration, s3:GetBucketPolicyStatus, "
            "s3:GetBucketPolicy and s3:GetBucketAcl"
        )
    if facts.mfa_delete:
        problems.append("versions can only be deleted with a second factor: turn MFA delete off")
    if facts.versioning in ("Enabled", "Suspended") and not allow_versioned:
        problems.append(
            f"versioning is {facts.versioning.lower()}, so a deletion keeps the bytes: use a bucket that never had "
            "versions, or set BGBATCH_ALLOW_VERSIONED=true, and every version is removed by name"
        )
    if facts.object_lock:
        problems.append("Object Lock is on, which can forbid deletion: use a bucket that was made without it")
    if facts.replication:
        problems.append("replication is on, and a copy is not deleted with its original: remove the replication rules")
    if facts.public:
        problems.append("it can be read by everybody: block public access, and remove public policies and grants")
    if facts.is_google and not soft_delete_off:
        problems.append(
            "Google Cloud keeps deleted objects for 7 days by default: run `gcloud storage buckets update gs://BUCKET "
            "--clear-soft-delete`, then set BGBATCH_SOFT_DELETE_OFF=true"
        )
    return problems


def check_bucket(store: ObjectStore, settings: Settings) -> None:
    """Ask and judge. A folder is always fit. Raises `BucketUnfit` with every problem, `StoreFault`."""
    if isinstance(store.storage, Folder):
        return
    from store.objects.s3 import S3  # slow to import: a command on a folder does without

    if not isinstance(store.storage, S3):
        return
    try:
        facts = read_facts(store.storage)
    except OSError as error:
        raise StoreFault(
            f"The bucket {store.storage.bucket} could not be looked at: {error_code(error)}. Check its name, "
            "BGBATCH_S3_ENDPOINT, and the keys."
        ) from None
    problems = judge(facts, allow_versioned=settings.allow_versioned, soft_delete_off=settings.soft_delete_off)
    if problems:
        raise BucketUnfit(f"The bucket {store.storage.bucket} cannot be used: {'; '.join(problems)}.")


def read_facts(s3: S3) -> BucketFacts:
    """What the server says of the bucket."""
    versioning = _ask(s3, "get_bucket_versioning")
    lock = _ask(s3, "get_object_lock_configuration")
    replication = _ask(s3, "get_bucket_replication")
    return BucketFacts(
        versioning=None if versioning is None else versioning.get("Status", ""),
        mfa_delete=(versioning or {}).get("MFADelete") == "Enabled",
        object_lock=None if lock is None else bool(lock.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled")),
        replication=None if replication is None else bool(replication.get("ReplicationConfiguration", {}).get("Rules")),
        public=_is_public(s3),
        is_google="googleapis.com" in str(s3.filesystem.endpoint_url or ""),
    )


def _is_public(s3: S3) -> bool | None:
    """By policy or by grant. The policy itself is read too: not every server judges it."""
    status, grants, policy = (_ask(s3, f"get_bucket_{name}") for name in ("policy_status", "acl", "policy"))
    if status is None or grants is None or policy is None:
        return None
    by_grant = any(
        str(each.get("Grantee", {}).get("URI", "")).endswith(_EVERYBODY) for each in grants.get("Grants", ())
    )
    said = bool(status.get("PolicyStatus", {}).get("IsPublic"))
    return by_grant or _lets_everybody_in(policy.get("Policy"), said)


def _lets_everybody_in(policy: str | None, said: bool) -> bool:
    """Whether the policy lets somebody in whom it does not name: without a condition, or by the server's word.

    That word alone does not do: Ceph calls each policy public that allows anything, to whomever.
    """
    try:
        statements = json.loads(policy or "{}").get("Statement", [])
    except (ValueError, AttributeError):
        return said  # rclone answers a listing here
    statements = statements if isinstance(statements, list) else [statements]
    unnamed = [each for each in statements if each.get("Effect") == "Allow" and not _names(each.get("Principal"))]
    return any(said or not each.get("Condition") for each in unnamed) or (said and not statements)


def _names(principal: object) -> bool:
    return isinstance(principal, dict) and "*" not in json.dumps(principal)


def _ask(s3: S3, method: str) -> dict[str, Any] | None:
    """The answer; empty when nothing is set or the server has no such thing; None when it refuses to say."""
    try:
        return s3.call(method)
    except OSError as error:
        code = error_code(error)
        if code in _NONE_SET or code in _NOT_OFFERED:
            return {}
        if code in ("AccessDenied", "Forbidden", "403"):
            return None
        raise
