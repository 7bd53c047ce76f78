"""The sentences serving puts into the outbox: one function per fact worth telling people."""

from serving.core.model import VersionRef
from serving.store.outbox import Notice, Severity


def version_refused(ref: VersionRef, alias: str, reason: str, answering: VersionRef | None) -> Notice:
    stays = f"version {answering.version} keeps answering" if answering else "nothing answers in its place"
    return Notice(
        kind="version_refused",
        severity=Severity.WARNING if answering else Severity.CRITICAL,
        title=f"Version {ref.version} of {ref.model} was refused as {alias}; {stays}",
        model=ref.model,
        version=ref.version,
        facts={"alias": alias, "reason": reason, "answering": answering.version if answering else None},
        dedup_key=f"version_refused:{ref}:{alias}",
    )


def log_dropping(model: str, reason: str) -> Notice:
    return Notice(
        kind="log_dropping",
        severity=Severity.WARNING,
        title=f"The inference log of {model} loses rows ({reason}); inference goes on",
        model=model,
        facts={"reason": reason},
        dedup_key=f"log_dropping:{model}",
    )


def challenger_ejected(ref: VersionRef, champion: str | None, evidence: str, rollout: str | None) -> Notice:
    return Notice(
        kind="challenger_ejected",
        severity=Severity.CRITICAL,
        title=f"Challenger {ref.version} of {ref.model} was ejected: {evidence}; "
        f"version {champion or 'none'} answers all requests",
        model=ref.model,
        version=ref.version,
        facts={"champion": champion, "evidence": evidence, "rollout": rollout},
        dedup_key=f"challenger_ejected:{ref}",
    )


def traffic_unreadable(model: str, reason: str) -> Notice:
    return Notice(
        kind="traffic_unreadable",
        severity=Severity.WARNING,
        title=f"The traffic tag of {model} cannot be followed: {reason}; the champion answers all requests",
        model=model,
        facts={"reason": reason},
        dedup_key=f"traffic_unreadable:{model}",
    )


def champion_orphaned(model: str, minutes: float) -> Notice:
    return Notice(
        kind="champion_orphaned",
        severity=Severity.WARNING,
        title=f"{model} lost its champion alias; it keeps answering for {minutes:g} minutes",
        model=model,
        version=None,
        facts={"minutes": minutes},
        dedup_key=f"champion_orphaned:{model}",
    )


def moved_by_hand(
    model: str, alias: str, from_version: str | None, to_version: str | None, follows_id: int
) -> Notice:
    """`follows_id` tells a move from an equal one after the alias was moved back."""
    way = f"from {from_version or 'nothing'} to {to_version or 'nothing'}"
    return Notice(
        kind="out_of_band",
        severity=Severity.INFO,
        title=f"{alias} of {model} was moved by hand {way}",
        model=model,
        version=to_version,
        facts={"alias": alias, "from": from_version, "to": to_version},
        dedup_key=f"out_of_band:{model}:{alias}:{follows_id}",
    )


def rolled_back(ref: VersionRef, to_version: str, strategy: str, actor: str, reason: str) -> Notice:
    return Notice(
        kind="rolled_back",
        severity=Severity.CRITICAL,
        title=f"{ref.model} was rolled back from version {ref.version} to {to_version}: {reason}",
        model=ref.model,
        version=ref.version,
        facts={"from": ref.version, "to": to_version, "strategy": strategy, "actor": actor, "reason": reason},
        dedup_key=f"rolled_back:{ref}:{to_version}",
    )


def champion_failing(ref: VersionRef, evidence: str, remedy: str) -> Notice:
    return Notice(
        kind="champion_failing",
        severity=Severity.CRITICAL,
        title=f"Champion {ref.version} of {ref.model} is failing ({evidence}); {remedy}",
        model=ref.model,
        version=ref.version,
        facts={"evidence": evidence},
        dedup_key=f"champion_failing:{ref}",
    )


def version_stuck(ref: VersionRef, threads: int) -> Notice:
    return Notice(
        kind="version_stuck",
        severity=Severity.CRITICAL,
        title=f"Version {ref.version} of {ref.model} does not answer: all its {threads} threads are stuck; "
        "it is not asked until a trial succeeds",
        model=ref.model,
        version=ref.version,
        facts={"threads": threads},
        dedup_key=f"version_stuck:{ref}",
    )
