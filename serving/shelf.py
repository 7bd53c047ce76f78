"""Versions loaded by number, because an admin asked: addressable without an alias until unloaded.

What one worker of a server loads, all load. Aliases remain the wanted state: a load without a number only
hurries what they name, and what an alias names cannot be unloaded. Durable before visible: a restart
brings the same versions back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack

from serving.core.errors import ArtifactRefused, ChangeRefused, NotServed, StoreUnavailable
from serving.core.model import VersionRef
from serving.followed import FollowedModel
from serving.follower import Follower
from serving.ledger import Ledger
from serving.library import Library
from serving.pool import LoadedVersion, VersionKey
from serving.store.record import ModelRecord
from serving.store.registry import RegisteredModel, Registry
from serving.visibility import Visibility

log = logging.getLogger(__name__)


class Shelf:
    """Confined to the event loop's thread."""

    def __init__(
        self,
        models: dict[str, FollowedModel],
        serves: Callable[[str], bool],
        registry: Registry,
        follower: Follower,
        library: Library,
        visibility: Visibility,
        ledger: Ledger,
        spread: Callable[..., Awaitable[list[str]]],
    ) -> None:
        """`spread` has the server's other workers do the same, and returns what kept them from it."""
        self._models = models
        self._serves = serves
        self._registry = registry
        self._follower = follower
        self._library = library
        self._visibility = visibility
        self._ledger = ledger
        self._spread = spread

    async def load(self, model: str, version: str | None, actor: str) -> None:
        """Returns once the version answers; without one, once all that the model's aliases name does.

        Of a model without aliases the newest version is loaded. Raises what keeps a version from
        answering; a version in memory is left as it is, because registered versions never change.
        """
        if not self._serves(model):
            raise NotServed(f"model '{model}' is left out by SIGNALBOX_MODELS", exists=sorted(self._models))
        registered = await asyncio.to_thread(self._registry.registered_model, model)
        followed = self._models.setdefault(model, FollowedModel(model))
        self._ledger.audit("repository_load", actor=actor, model=model, version=version)
        if version is None and registered.aliases:
            await self._hurry(followed, registered)
            _check_all_did(await self._spread("hurry", model=model))
            return
        number = version if version is not None else await self._newest(model)
        key = VersionKey(VersionRef(model, number), registered.created_ms)
        loaded = await self._library.load(key)
        with followed.keeping(loaded):
            async with followed.lock:
                await self._change(followed, followed.by_hand | {number: loaded})
        _check_all_did(await self._spread("look"))

    async def unload(self, model: str, version: str | None, actor: str) -> None:
        """Takes the version out of service, without one all that were loaded by number."""
        followed = self._models.get(model)
        if followed is None or not (followed.served or followed.by_hand):
            names = [m.name for m in self._models.values() if m.served or m.by_hand]
            raise NotServed(f"model '{model}' is not served", exists=sorted(names))
        async with followed.lock:
            _refuse_wanted(followed, version)
            if version is not None and version not in followed.by_hand:
                raise NotServed(f"version {version} of '{model}' is not loaded", exists=[*followed.by_hand])
            left = {n: v for n, v in followed.by_hand.items() if version not in (None, n)}
            await self._change(followed, left)
        self._ledger.audit("repository_unload", actor=actor, model=model, version=version)
        self._library.sweep(followed)
        _check_all_did(await self._spread("look"))

    async def hurry(self, model: str) -> None:
        """What `load` without a version does of a model with aliases, for another worker's caller."""
        registered = await asyncio.to_thread(self._registry.registered_model, model)
        await self._hurry(self._models.setdefault(model, FollowedModel(model)), registered)

    async def follow(self, records: Callable[[], Mapping[str, ModelRecord]]) -> None:
        """Load and let go of what other workers of this server did, by their common record."""
        for name, record in (await asyncio.to_thread(records)).items():
            followed = self._models.setdefault(name, FollowedModel(name))
            if {served.version for served in record.by_hand} == followed.by_hand.keys():
                continue
            missing = [served for served in record.by_hand if served.version not in followed.by_hand]
            loaded = [await self._library.reload(name, served) for served in missing]
            await self._adopt(followed, loaded, records)

    async def _adopt(
        self,
        followed: FollowedModel,
        loaded: Sequence[LoadedVersion],
        records: Callable[[], Mapping[str, ModelRecord]],
    ) -> None:
        with ExitStack() as kept:
            for version in loaded:
                kept.enter_context(followed.keeping(version))
            async with followed.lock:  # so that no change of our own is half done while the record is read
                record = (await asyncio.to_thread(records)).get(followed.name, ModelRecord())
                here = followed.by_hand | {version.ref.version: version for version in loaded}
                wanted = {s.version: here[s.version] for s in record.by_hand if s.version in here}
                if wanted != followed.by_hand:
                    followed.by_hand = wanted
                    self._visibility.show(followed)
        self._library.sweep(followed)

    def consider(self, model: FollowedModel) -> None:
        """Let go of versions whose model was deleted, or registered again under the same name."""
        registered = model.registered
        stale = [
            number
            for number, version in model.by_hand.items()
            if registered is None or registered.created_ms != version.key.created_ms
        ]
        for number in stale:
            log.warning("dropped_by_hand model=%s version=%s", model.name, number)
            del model.by_hand[number]
        if stale:
            self._visibility.show(model)
            self._library.sweep(model)

    async def _hurry(self, followed: FollowedModel, registered: RegisteredModel) -> None:
        """Look at what the registry names now, and retry what was refused."""
        followed.registered = registered
        followed.refusals.clear()
        self._follower.pursue(followed)
        if followed.task is not None:
            await asyncio.wait([followed.task])
        for alias, refusal in followed.refusals.items():
            raise ArtifactRefused(
                f"alias {alias} of '{followed.name}' is not served as wanted: {refusal.reason}",
                next_step="move the alias to a version that loads, or register a corrected one",
            )

    async def _newest(self, model: str) -> str:
        versions = await asyncio.to_thread(self._registry.versions, model)
        if not versions:
            raise NotServed(f"model '{model}' has no versions", exists=[])
        return versions[-1].ref.version

    async def _change(self, followed: FollowedModel, by_hand: dict[str, LoadedVersion]) -> None:
        before, followed.by_hand = followed.by_hand, by_hand
        try:
            await self._visibility.publish_by_hand(followed)
        except StoreUnavailable:
            followed.by_hand = before
            raise


def _check_all_did(problems: Sequence[str]) -> None:
    if problems:
        raise ArtifactRefused(
            f"done here, but not by every worker of this server: {'; '.join(problems)}",
            next_step="repeat the call; see the server's log if it fails again",
        )


def _refuse_wanted(followed: FollowedModel, version: str | None) -> None:
    """What an alias names stays: unloading it would only last until the next look at the registry."""
    named = {
        alias: loaded.ref.version
        for alias, loaded in followed.served.items()
        if version in (None, loaded.ref.version)
    }
    if named:
        told = ", ".join(f"{alias} names version {number}" for alias, number in sorted(named.items()))
        raise ChangeRefused(
            f"'{followed.name}' is served because its aliases say so ({told}): move or delete them in MLflow"
        )
