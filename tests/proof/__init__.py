"""The figures this product publishes, and how they are made: `make proof` (all), `make proof-short` (minutes)."""
