"""The tables of the state store, as every query names them.

Types are ones that SQLite and PostgreSQL share: numbers, text, and times as ISO-8601 UTC text. The
migrations create these tables; a test holds both descriptions equal. Long because it is the whole schema.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

# A name of our own: MLflow and Prefect keep an `alembic_version` in databases they may share with us.
VERSION_TABLE = "signalbox_version"
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""Every schema revision this release knows, oldest first; the last is the one it works with."""

metadata = MetaData()

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, nullable=False, autoincrement=False),
    Column("entry_id", String(64), nullable=False),
    Column("at", String(32), nullable=False),
    Column("action", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("model", Text),
    Column("version", Text),
    Column("text", Text, nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    PrimaryKeyConstraint("seq", name="pk_audit"),
    UniqueConstraint("entry_id", name="uq_audit_entry_id"),
    Index("ix_audit_model", "model", "seq"),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    PrimaryKeyConstraint("id", name="pk_audit_head"),
)

leases = Table(
    "leases",
    metadata,
    Column("resource", String(512), nullable=False),
    Column("holder", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("since", String(32), nullable=False),
    PrimaryKeyConstraint("resource", name="pk_leases"),
)

alias_changes = Table(
    "alias_changes",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=True),
    Column("model", String(512), nullable=False),
    Column("alias", String(512), nullable=False),
    Column("from_version", Text),
    Column("to_version", Text),
    Column("epoch", BigInteger),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Column("outcome", String(16)),
    Column("evidence", Text),
    Column("settled_at", String(32)),
    Column("follows_id", Integer),
    PrimaryKeyConstraint("id", name="pk_alias_changes"),
    UniqueConstraint("model", "alias", "follows_id", name="uq_alias_changes_follows"),
    sqlite_autoincrement=True,
)

overrides = Table(
    "overrides",
    metadata,
    Column("model", String(512), nullable=False),
    Column("role", String(64), nullable=False),
    Column("id", String(64), nullable=False),
    Column("not_version", Text, nullable=False),
    Column("answer_with", Text),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("laid_at", String(32), nullable=False),
    Column("ended_at", String(32)),
    Column("ended_why", Text),
    PrimaryKeyConstraint("model", "role", name="pk_overrides"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("severity", String(16), nullable=False),
    Column("title", Text, nullable=False),
    Column("model", Text),
    Column("version", Text),
    Column("facts", Text, nullable=False),
    Column("dedup_key", String(1024), nullable=False),
    # Equal to the key while undelivered and null after, which makes "one undelivered per key"
    # a plain unique constraint.
    Column("undelivered_key", String(1024)),
    Column("created_at", String(32), nullable=False),
    Column("next_try_at", String(32), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text),
    Column("delivered_at", String(32)),
    Column("receipt", Text),
    PrimaryKeyConstraint("id", name="pk_outbox"),
    UniqueConstraint("undelivered_key", name="uq_outbox_undelivered_key"),
    sqlite_autoincrement=True,
)

digests = Table(
    "digests",
    metadata,
    Column("model", String(512), nullable=False),
    Column("version", String(64), nullable=False),
    Column("source", String(1024), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("recorded_at", String(32), nullable=False),
    PrimaryKeyConstraint("model", "version", "source", name="pk_digests"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(64), nullable=False),
    Column("model", String(512), nullable=False),
    Column("version", String(64), nullable=False),
    Column("strategy", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("phase", String(32), nullable=False),
    # Equal to the model while the rollout is open and null after: one open rollout per model.
    Column("open_model", String(512)),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("restore_point", Text),
    Column("evidence", Text),
    # Of a staged rollout: what is wanted, how far it is, and the last word of a person.
    Column("spec", Text),
    Column("status", Text),
    Column("command", Text),
    Column("created_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("finished_at", String(32)),
    PrimaryKeyConstraint("id", name="pk_rollouts"),
    UniqueConstraint("open_model", name="uq_rollouts_open_model"),
)
Index("ix_rollouts_model", rollouts.c.model, rollouts.c.created_at)

workers = Table(
    "workers",
    metadata,
    Column("worker", String(256), nullable=False),
    Column("beat_at", String(32), nullable=False),
    Column("state", Text, nullable=False),
    PrimaryKeyConstraint("worker", name="pk_workers"),
)

sightings = Table(
    "sightings",
    metadata,
    Column("model", String(512), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("seen_at", String(32), nullable=False),
    PrimaryKeyConstraint("model", "alias", name="pk_sightings"),
)

reports = Table(
    "reports",
    metadata,
    Column("id", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("model", String(512), nullable=False),
    Column("version", String(64)),
    Column("verdict", String(32), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("id", name="pk_reports"),
)
Index("ix_reports_latest", reports.c.kind, reports.c.model, reports.c.created_at)

levels = Table(
    "levels",
    metadata,
    Column("model", String(512), nullable=False),
    Column("level", String(16), nullable=False),
    Column("version", String(64)),
    Column("status", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("checked_at", String(32), nullable=False),
    PrimaryKeyConstraint("model", "level", name="pk_levels"),
)

model_files = Table(
    "model_files",
    metadata,
    Column("path", String(1024), nullable=False),
    Column("members", Text, nullable=False),
    Column("attached", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("since", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("source_digest", String(64)),
    Column("side_digest", String(64)),
    Column("model", Text),
    Column("version", String(64)),
    Column("reason", Text),
    Column("side", Text),
    Column("attempt", String(64)),
    Column("missing_since", String(32)),
    Column("updated_at", String(32), nullable=False),
    PrimaryKeyConstraint("path", name="pk_model_files"),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    # Equal to the name while the key is in force and null after: one key in force per name.
    Column("active_name", String(128)),
    Column("digest", String(64), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("models", Text, nullable=False),
    Column("requests_per_second", Float),
    Column("created_at", String(32), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", String(32)),
    Column("revoked_at", String(32)),
    PrimaryKeyConstraint("id", name="pk_keys"),
    UniqueConstraint("active_name", name="uq_keys_active_name"),
    UniqueConstraint("digest", name="uq_keys_digest"),
)

comparisons = Table(
    "comparisons",
    metadata,
    Column("model", String(512), nullable=False),
    Column("champion", String(64), nullable=False),
    Column("other", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    # 1 where the other version answered the caller and the champion got the copy.
    Column("is_control", Integer, nullable=False),
    Column("minute", String(32), nullable=False),
    # Each worker has rows of its own, so that writing one again changes nothing.
    Column("worker", String(256), nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint(
        "model", "minute", "champion", "other", "role", "is_control", "worker", name="pk_comparisons"
    ),
)
Index("ix_comparisons_minute", comparisons.c.minute)

restore_points = Table(
    "restore_points",
    metadata,
    Column("id", String(64), nullable=False),
    Column("model", String(512), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("champion", String(64)),
    Column("state", Text, nullable=False),
    Column("checksum", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("verdict_reason", Text, nullable=False),
    Column("checked_at", String(32)),
    PrimaryKeyConstraint("id", name="pk_restore_points"),
)
Index("ix_restore_points_model", restore_points.c.model, restore_points.c.created_at)

rollbacks = Table(
    "rollbacks",
    metadata,
    Column("id", String(64), nullable=False),
    Column("model", String(512), nullable=False),
    # Equal to the model while the rollback is open and null after: one open rollback per model.
    Column("open_model", String(512)),
    Column("strategy", String(16), nullable=False),
    Column("from_version", String(64), nullable=False),
    Column("to_version", String(64), nullable=False),
    Column("restore_point", String(64)),
    Column("state", String(16), nullable=False),
    Column("step", String(32), nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("finished_at", String(32)),
    PrimaryKeyConstraint("id", name="pk_rollbacks"),
    UniqueConstraint("open_model", name="uq_rollbacks_open_model"),
)
Index("ix_rollbacks_model", rollbacks.c.model, rollbacks.c.created_at)

freezes = Table(
    "freezes",
    metadata,
    Column("id", String(64), nullable=False),
    # Empty for every model.
    Column("model", String(512), nullable=False),
    # Equal to the model while the freeze was not lifted and null after: one freeze per model.
    Column("active_model", String(512)),
    Column("until", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("lifted_at", String(32)),
    Column("lifted_by", Text),
    PrimaryKeyConstraint("id", name="pk_freezes"),
    UniqueConstraint("active_model", name="uq_freezes_active_model"),
)

policies = Table(
    "policies",
    metadata,
    Column("model", String(512), nullable=False),
    Column("name", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("updated_by", Text, nullable=False),
    PrimaryKeyConstraint("model", "name", name="pk_policies"),
)

telemetry = Table(
    "telemetry",
    metadata,
    Column("model", String(512), nullable=False),
    Column("version", String(64), nullable=False),
    Column("variant", String(16), nullable=False),
    Column("step_seconds", Integer, nullable=False),
    # Start of the span, in seconds since 1970: spans are found and grouped by arithmetic.
    Column("start", BigInteger, nullable=False),
    Column("worker", String(256), nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("answered_rows", BigInteger, nullable=False),
    Column("faults", BigInteger, nullable=False),
    Column("has_labels", Integer, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint(
        "model", "version", "variant", "step_seconds", "start", "worker", name="pk_telemetry"
    ),
)
Index("ix_telemetry_age", telemetry.c.step_seconds, telemetry.c.start)

resources = Table(
    "resources",
    metadata,
    Column("step_seconds", Integer, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("worker", String(256), nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("step_seconds", "start", "worker", name="pk_resources"),
)

failures = Table(
    "failures",
    metadata,
    Column("fingerprint", String(64), nullable=False),
    Column("model", String(512), nullable=False),
    Column("version", String(64), nullable=False),
    Column("error", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("times", BigInteger, nullable=False),
    Column("first_seen_at", String(32), nullable=False),
    Column("last_seen_at", String(32), nullable=False),
    PrimaryKeyConstraint("fingerprint", name="pk_failures"),
)
Index("ix_failures_model", failures.c.model, failures.c.last_seen_at)

labels = Table(
    "labels",
    metadata,
    Column("request_id", String(128), nullable=False),
    Column("row", Integer, nullable=False),
    Column("model", String(512), nullable=False),
    Column("version", String(64), nullable=False),
    Column("variant", String(16), nullable=False),
    Column("label", Text, nullable=False),
    Column("said", Text),
    Column("scored", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Column("answered_at", String(32), nullable=False),
    Column("replaced", Integer, nullable=False),
    PrimaryKeyConstraint("request_id", "row", "model", "version", "variant", name="pk_labels"),
)
Index("ix_labels_age", labels.c.at)
Index("ix_labels_model", labels.c.model, labels.c.version, labels.c.at)
