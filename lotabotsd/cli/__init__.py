"""The commands: thin doors to the rooms."""
