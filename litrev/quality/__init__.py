"""What judges samples: the classifier of digits, the oracle that reads captioned scenes, and distances."""
