"""Bad input that was found once, each with its exit code and a piece of what is said; see README.md."""
