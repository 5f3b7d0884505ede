"""R records, and all that can be asked of them."""
