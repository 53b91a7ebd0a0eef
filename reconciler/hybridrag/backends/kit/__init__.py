"""What every engine shares: rules and words that name no product. Engines import from here, never the other way."""
