"""Adapter for models that ComfyUI has loaded; nothing else below `core` imports `comfy`."""
