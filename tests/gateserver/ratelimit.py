"""Fixed windows counted in memory, with the headers that tell about them; a restart clears them."""
from __future__ import annotations

import math
import time


class Limiter:
    """Counts calls by key in windows of ``seconds`` that begin with a key's first call."""

    def __init__(self, seconds: int):
        self.seconds = seconds
        self._windows = {}

    def hit(self, key: str, limit: int) -> tuple:
        """Counts one call. Returns (allowed, headers)."""
        now = time.time()
        count, end = self._windows.get(key, (0, 0))
        if now >= end:
            count, end = 0, now + self.seconds
        count += 1
        self._windows[key] = (count, end)
        remaining, left = max(0, limit - count), math.ceil(end - now)
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": str(math.ceil(end)),
            "RateLimit-Policy": "%d;w=%d" % (limit, self.seconds),
            "RateLimit-Limit": str(limit),
            "RateLimit-Remaining": str(remaining),
            "RateLimit-Reset": str(left),
        }
        if count > limit:
            headers["Retry-After"] = str(left)
        return count <= limit, headers

    def take_back(self, key: str) -> None:
        count, end = self._windows.get(key, (0, 0))
        if count > 0:
            self._windows[key] = (count - 1, end)

    def clear(self) -> None:
        self._windows.clear()
