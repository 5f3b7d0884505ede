"""The seed audit: what draws in a training, and which of the user's own seeds reaches it."""
