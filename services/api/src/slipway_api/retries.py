"""A budget for retries: when much fails, trying everything twice makes it worse."""

# One retry for ten calls, and some in advance, so that also a quiet gateway may retry.
PER_CALL = 0.1
AT_MOST = 10.0


class RetryBudget:
    def __init__(self) -> None:
        self._left = AT_MOST

    def called(self) -> None:
        self._left = min(AT_MOST, self._left + PER_CALL)

    def take(self) -> bool:
        """Whether one more call may be tried again."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
