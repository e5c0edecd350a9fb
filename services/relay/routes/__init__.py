"""The relay's protocol over HTTP: a noun a file, all routes in `router`."""
