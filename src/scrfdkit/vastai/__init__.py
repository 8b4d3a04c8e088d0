"""Pictures to what Vastai's `vamp` reads, and what it writes to result files: the way to a device and back."""
