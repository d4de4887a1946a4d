"""The names that NORM keys may have, by what they compute at inference."""

from __future__ import annotations

BATCH_NORMS = ("BN", "SyncBN", "NaiveSyncBN", "FrozenBN", "naiveSyncBN", "nnSyncBN")
GROUP_NORMS = ("GN", "NaiveGN")
NORMS = ("", *BATCH_NORMS, *GROUP_NORMS)
