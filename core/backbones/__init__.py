"""The diffusion models: the one protocol that the method talks to, noise levels, memory, and two adapters."""
