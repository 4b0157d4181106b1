"""What the vendor allows on this appliance: signed licences, their standing, and the keys that are trusted."""
