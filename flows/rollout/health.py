"""Whether critical health sends a champion back: pure. Never away from where a rollback led."""

from enum import StrEnum


class Answer(StrEnum):
    """The reason is the sentence's end: 'version 3 of digits stays: ...'."""

    GO_BACK = "go back"
    NOT_ALLOWED = "SIGNALBOX_ROLLBACK_ON_CRITICAL is off"
    NOT_CHAMPION = "it is not champion any more"
    IS_A_WAY_BACK = "a rollback led to it, and a rollback is not itself rolled back"


def is_for_health(
    *, is_allowed: bool, failing: str, champion: str | None, went_back_to: str | None
) -> Answer:
    """`went_back_to` is where the last rollback of the model led, if there was one."""
    if not is_allowed:
        return Answer.NOT_ALLOWED
    if champion != failing:
        return Answer.NOT_CHAMPION
    return Answer.IS_A_WAY_BACK if went_back_to == failing else Answer.GO_BACK
