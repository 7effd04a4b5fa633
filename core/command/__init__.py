"""The command `vidseg`: options are parsed here, the work is done by the rooms below."""
