"""The records: everything that is remembered longer than a batch lives. No customer's file name or pixel is here,
and of addresses only those that an account set up: its places and webhooks.

What is deleted when: a batch's row keeps numbers only and stays as history; sign-in links and sessions go when they
expire; consent events and receipts are append-only (database rules refuse UPDATE and DELETE) and stay.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC. SQLite keeps no zone, so it is taken off on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be recorded")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC with its zone set."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=_NAMES)

_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")

accounts = Table(
    "accounts",
    metadata,
    Column("account_id", String(33), primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("created_at", UtcTime, nullable=False),
    Column("closed_at", UtcTime),
    Column("purge_after_hours", Float),
    Column("purge_on_download", Boolean, nullable=False, server_default=false()),
)
"""A closed account keeps its random id; its name is replaced by that id.

`purge_after_hours`, `purge_on_download`: what the account wants gone earlier than the setting for all says.
"""

people = Table(
    "people",
    metadata,
    Column("person_id", String(33), primary_key=True),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False, index=True),
    Column("email", String(320), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("oidc_issuer", String(500)),
    Column("oidc_subject", String(255)),
    Column("added_by", String(33)),
    Column("signed_in_at", UtcTime),
    UniqueConstraint("account_id", "email"),
    Index("uq_people_oidc_issuer_oidc_subject", "oidc_issuer", "oidc_subject", unique=True),
)
"""`oidc_issuer` and `oidc_subject`: who this is at the identity provider, once they signed in through it.

`added_by`: the id of the owner who did so on a page; none for an operator. It stays when either of the two has gone.
"""

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(33), primary_key=True),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False, index=True),
    Column("name", String(200), nullable=False),
    Column("key_sha256", String(64), nullable=False, unique=True),
    Column("created_by", ForeignKey("people.person_id"), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("revoked_at", UtcTime),
)
"""Keys for programs: shown once, only their hash is kept. A key may submit and withdraw; it can never grant."""

sign_in_links = Table(
    "sign_in_links",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("person_id", ForeignKey("people.person_id"), nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("oidc_issuer", String(500)),
    Column("oidc_subject", String(255)),
)
"""`oidc_issuer` and `oidc_subject`: for whom the identity provider vouched, if the link was made for that."""

sessions = Table(
    "sessions",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("person_id", ForeignKey("people.person_id"), nullable=False),
    Column("csrf_token", String(64), nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

provider_sign_ins = Table(
    "provider_sign_ins",
    metadata,
    Column("browser_sha256", String(64), primary_key=True),
    Column("state", String(64), nullable=False),
    Column("nonce", String(64), nullable=False),
    Column("code_verifier", String(128), nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)
"""Sign-ins that were sent to the identity provider and have not come back. Used once, deleted when they expire."""

attempts = Table(
    "attempts",
    metadata,
    Column("bucket", String(64), primary_key=True),
    Column("window_ends", UtcTime, nullable=False),
    Column("count", Integer, nullable=False),
)
"""How often somebody tried something in the current window. `bucket`: a hash of what and who; deleted afterwards."""

batches = Table(
    "batches",
    metadata,
    Column("batch_id", String(36), primary_key=True),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False),
    Column("industry", String(32)),
    Column("grant_id", String(33)),
    Column("options", JSON, nullable=False),
    Column("received_at", UtcTime, nullable=False),
    Column("purge_at", UtcTime, nullable=False, index=True),
    Column("state", String(24), nullable=False),
    Column("items", Integer, nullable=False, default=0),
    Column("done", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("refusals", JSON, nullable=False),
    Column("left_out", JSON, nullable=False, server_default="{}"),
    Column("purged_at", UtcTime),
    Column("purge_on_download", Boolean, nullable=False, server_default=false()),
    Index("ix_batches_account_received", "account_id", "received_at"),
    Index("ix_batches_received_at", "received_at"),
)
"""`refusals`: reason of the consent gate -> how many outputs of this batch it kept out of the lake.

`left_out`: reason -> how many files of its source are not in the batch.
"""

_unpurged = batches.c.purged_at.is_(None)
Index("ix_batches_unpurged", batches.c.purge_at, postgresql_where=_unpurged, sqlite_where=_unpurged)

consent_events = Table(
    "consent_events",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("account_id", String(33), nullable=False, index=True),
    Column("actor", String(33)),
    Column("act", String(16), nullable=False),
    Column("industry", String(32), nullable=False),
    Column("grant_id", String(33), index=True),
    Column("notice_version", String(32), nullable=False),
    Column("notice_sha256", String(64), nullable=False),
    Column("page", String(64), nullable=False),
    Column("method", String(16), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("received_at", UtcTime, nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
    Column("account_previous_hash", String(64), nullable=False, server_default="0" * 64),
    Column("previous_hash", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
    Index("uq_consent_events_account_id_account_previous_hash", "account_id", "account_previous_hash", unique=True),
    Index("ix_consent_events_account_id_industry_sequence", "account_id", "industry", "sequence"),
)
"""Append-only, hash-chained over all and per account. No foreign key to accounts: the chain outlives the account."""

admissions = Table(
    "admissions",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("grant_id", String(33), nullable=False, index=True),
    Column("batch_id", String(36), nullable=False, index=True),
    Column("industry", String(32), nullable=False, index=True),
    Column("items", JSON, nullable=False, server_default="[]"),
    Column("rows", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("admitted_at", UtcTime, nullable=False),
    Column("merged_into", String(200), index=True),
    Column("retired_at", UtcTime),
    Column("erased_at", UtcTime),
)
"""One row per lake file that the gate let in. A file without one is no candidate and is erased by `reconcile`.

`items`: the numbers of the items that were offered with it; `rows` of them could be written.
`merged_into`: the merged file that holds these rows since `retired_at`; the row stays as the account of what was given.
`erased_at`: when the grant's files were gone, or this one was lost.
"""

merged_files = Table(
    "merged_files",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("grant_id", String(33), nullable=False, index=True),
    Column("industry", String(32), nullable=False, index=True),
    Column("rows", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("merged_at", UtcTime, nullable=False),
    Column("retired_at", UtcTime),
    Column("erased_at", UtcTime),
)
"""Files that hold the rows of several admissions of one grant. `retired_at`: since then a bigger one holds them."""

pulls = Table(
    "pulls",
    metadata,
    Column("pull_id", String(33), primary_key=True),
    Column("industry", String(32), nullable=False),
    Column("recipient", String(200), nullable=False),
    Column("place", String(1000), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("query", JSON, nullable=False),
    Column("lake_state", String(64), nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
)
"""Copies of candidates that somebody took. Recorded before their first image, so that none is unknown."""

pulled_grants = Table(
    "pulled_grants",
    metadata,
    Column("pull_id", ForeignKey("pulls.pull_id"), primary_key=True),
    Column("grant_id", String(33), primary_key=True, index=True),
    Column("rows", Integer, nullable=False),
    Column("erased_at", UtcTime),
)
"""How many rows of a grant a pull took (or set out to take). `erased_at`: when they were gone from that copy."""

copies_under_way = Table(
    "copies_under_way",
    metadata,
    Column("place_sha256", String(64), primary_key=True),
    Column("lease_holder", String(128), nullable=False),
    Column("lease_until", UtcTime, nullable=False),
    Column("place", Text),
)
"""Where a copy is being made just now, and by whom: until then no other pull begins there, inside it or around it."""

receipts = Table(
    "receipts",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("subject", String(36), nullable=False, index=True),
    Column("objects", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("first_deletion", UtcTime, nullable=False),
    Column("last_deletion", UtcTime, nullable=False),
    Column("deadline", UtcTime, nullable=False),
    Column("remaining", Integer, nullable=False),
    Column("places", JSON, nullable=False, server_default="[]"),
    Column("previous_hash", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
)

erasures = Table(
    "erasures",
    metadata,
    Column("subject", String(36), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("objects", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("first_deletion", UtcTime, nullable=False),
)
"""Erasures that have begun. A row becomes a receipt when nothing is left, so a crash in between loses no count."""

cleanups = Table(
    "cleanups",
    metadata,
    Column("cleanup_id", String(33), primary_key=True),
    Column("finished_at", UtcTime, nullable=False, index=True),
    Column("faults", Integer, nullable=False),
    Column("skew_seconds", Float, nullable=False),
)
"""One row per cleanup that came to its end. `skew_seconds`: how far the store's clock was ahead of the cleanup's."""

canaries = Table(
    "canaries",
    metadata,
    Column("batch_id", String(36), primary_key=True),
    Column("purge_at", UtcTime, nullable=False, index=True),
    Column("checked_at", UtcTime),
    Column("found_in", JSON, nullable=False, server_default="[]"),
)
"""Our own synthetic batches. Their markers follow from their ids and are kept nowhere. `found_in`: names of places."""

submissions = Table(
    "submissions",
    metadata,
    Column("batch_id", String(36), primary_key=True),
    Column("account_id", String(33), nullable=False, index=True),
    Column("upload_key", String(64)),
    Column("ready_at", UtcTime, index=True),
    Column("due_at", UtcTime),
    Column("again", JSON),
    Column("again_before", UtcTime),
    Column("cancel_at", UtcTime),
    Column("lease_holder", String(64)),
    Column("lease_until", UtcTime),
    Column("lease_items", Integer, nullable=False, server_default="0"),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("sealed_with", String(16)),
)
"""How a batch stands in line. `upload_key`: names its uploads until it is sealed or purged, then it is forgotten.
`sealed_with`: what the list of its photos is called in the transient store, at random.

`ready_at`: since when it waits for workers; `due_at`: when its customer needs it, if said. `again`: codes of failures
to try once more if they happened before `again_before`. `cancel_at`: when it was called off. The lease says which
process works on it, or seals it, and until when others keep off. `lease_items`: how many photos were left then; once
it is given back, how many of them had workers.
"""

_has_key = submissions.c.upload_key.is_not(None)
Index("ix_submissions_upload_key", submissions.c.upload_key, postgresql_where=_has_key, sqlite_where=_has_key)

shares = Table(
    "shares",
    metadata,
    Column("account_id", String(33), primary_key=True),
    Column("finish_tag", Float, nullable=False, server_default="0"),
    Column("weight", Float, nullable=False, server_default="1"),
    Column("most_batches", Integer),
    Column("most_items", Integer),
)
"""Each account's place in the fair share (`flows.fair_share`), its weight, and limits other than the settings'."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("account_id", String(33), primary_key=True),
    Column("key_sha256", String(64), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("status", Integer),
    Column("answer", JSON),
    Column("created_at", UtcTime, nullable=False, index=True),
)
"""What a request with an Idempotency-Key was answered; kept for a day. Answers hold ids and numbers, no names."""

account_places = Table(
    "account_places",
    metadata,
    Column("account_id", String(33), primary_key=True),
    Column("url", String(500), primary_key=True),
    Column("created_at", UtcTime, nullable=False),
)
"""Buckets and folders that an operator lets an account read from and deliver to. Settings, kept until taken away."""

schedules = Table(
    "schedules",
    metadata,
    Column("schedule_id", String(33), primary_key=True),
    Column("account_id", String(33), nullable=False, index=True),
    Column("cron", String(100), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("source", String(500), nullable=False),
    Column("deliver", String(500)),
    Column("industry", String(32)),
    Column("options", JSON, nullable=False),
    Column("overlap", String(16), nullable=False),
    Column("deadline_minutes", Integer),
    Column("fingerprint_key", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("paused_at", UtcTime),
    Column("resumed_at", UtcTime),
)
"""Runs that start themselves. `source` and `deliver` are the customer's settings and go with the schedule.

Paused since `paused_at`, or going again since `resumed_at`: what was missed in between is not caught up.
"""

nights = Table(
    "nights",
    metadata,
    Column("night_id", String(33), primary_key=True),
    Column("schedule_id", String(33), nullable=False),
    Column("account_id", String(33), nullable=False),
    Column("due_at", UtcTime, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("state", String(24), nullable=False),
    Column("batch_id", String(36)),
    Column("found", Integer, nullable=False, server_default="0"),
    Column("new", Integer, nullable=False, server_default="0"),
    Column("changed", Integer, nullable=False, server_default="0"),
    Column("skipped", Integer, nullable=False, server_default="0"),
    Column("deleted", Integer, nullable=False, server_default="0"),
    Column("left_out", Integer, nullable=False, server_default="0"),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("delivered", Integer, nullable=False, server_default="0"),
    Column("failures", JSON, nullable=False, server_default="{}"),
    Column("deadline_at", UtcTime),
    Column("estimate_at", UtcTime),
    Column("alerted_at", UtcTime),
    Column("lease_holder", String(64)),
    Column("lease_until", UtcTime),
    UniqueConstraint("schedule_id", "due_at"),
)
"""One run of a schedule: numbers and codes. A due time is run once, however often it is asked for.

The lease says which process works on it, and until when others keep off.
"""

_goes_on = nights.c.ended_at.is_(None)
_of_schedule = (nights.c.schedule_id, nights.c.due_at)
Index("ix_nights_going", *_of_schedule, postgresql_where=_goes_on, sqlite_where=_goes_on)

fingerprints = Table(
    "fingerprints",
    metadata,
    Column("schedule_id", String(33), primary_key=True),
    Column("path_hmac", String(64), primary_key=True),
    Column("content_hmac", String(64), nullable=False),
)
"""What a schedule has processed, as keyed hashes: of a photo's place, and of its size and version. No name, no content.

Without the schedule's key they say nothing; they go with the schedule.
"""

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", String(33), primary_key=True),
    Column("account_id", String(33), nullable=False, index=True),
    Column("url", String(500), nullable=False),
    Column("secret", String(80), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
)
"""Where an account wants to be told. The secret signs, so it is kept as it is."""

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("event_id", String(33), primary_key=True),
    Column("webhook_id", String(33), nullable=False, index=True),
    Column("kind", String(40), nullable=False),
    Column("body", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False, index=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_try_at", UtcTime, index=True),
    Column("delivered_at", UtcTime),
    Column("last_status", Integer),
)
"""What is to be told, and how often it was tried. Bodies hold ids, numbers, codes. No `next_try_at`: no more tries."""
