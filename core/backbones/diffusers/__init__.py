"""Adapter for checkpoints on the disk, run by diffusers without a host."""
