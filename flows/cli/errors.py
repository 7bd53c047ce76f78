"""The error of a command that cannot do what it was asked; `main` prints it as one sentence.

SignalboxError
└── CommandFailed    `problem` says what is wrong, `next_step` what to do about it
    └── Unreachable  a server of ours gave no answer at `url`
"""

from serving.core.errors import SignalboxError


class CommandFailed(SignalboxError):
    def __init__(self, problem: str, *, next_step: str = "") -> None:
        self.problem = problem
        self.next_step = next_step
        super().__init__(f"{problem}; {next_step}" if next_step else problem)


class Unreachable(CommandFailed):
    def __init__(self, url: str, reason: str, *, next_step: str) -> None:
        self.url = url
        super().__init__(f"{url} cannot be reached: {reason}", next_step=next_step)
