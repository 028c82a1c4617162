"""Speech recognition as a service."""
