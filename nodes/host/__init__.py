"""Between host and core: schema helpers, frames in, pictures out, widgets, progress, paths."""
