"""The api over HTTP: a noun a file, each of which adds its routes to the application."""
