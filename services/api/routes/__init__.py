"""The HTTP routes of the api: one noun per file, each of which adds its routes to the application."""
