"""What can be set: the parts with their sources, presets and qualities, and overrides as text."""
