"""The whole chain in one node, and the bundled model."""

from __future__ import annotations
