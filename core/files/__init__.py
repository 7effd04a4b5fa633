"""Reading and writing clips, pictures and results."""
