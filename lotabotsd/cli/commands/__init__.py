"""The commands of lotabotsctl, one file per subject."""
