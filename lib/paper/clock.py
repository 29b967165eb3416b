"""Work that has to end in time."""

import time


class OutOfTime(Exception):
    """The time that was given does not hold the next step."""


class Clock:
    """Stops long work between two of its steps, before `seconds` (0: never) are over."""

    def __init__(self, seconds: float):
        self.seconds, self.began = seconds, time.monotonic()
        self.last = self.began

    def start(self) -> None:
        """Steps of another kind begin now."""
        self.last = time.monotonic()

    def step(self) -> None:
        """Another step is ahead, as long as the one since the last call. Raises OutOfTime if it would end too late."""
        now = time.monotonic()
        took, self.last = now - self.last, now
        if self.seconds and now + took - self.began > self.seconds:
            raise OutOfTime

    def say(self, text: str) -> None:
        """A line, with the seconds since the beginning."""
        print(f"[{time.monotonic() - self.began:5.0f} s] {text}", flush=True)
