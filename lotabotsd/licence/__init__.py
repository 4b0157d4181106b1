"""What the vendor allows on this appliance: signed licences, their standing, and whom it trusts."""
