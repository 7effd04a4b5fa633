"""What people do with label maps: name, pick, correct, split, mask and export regions."""
