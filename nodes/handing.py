"""Hand regions to other nodes and programs."""

from __future__ import annotations
