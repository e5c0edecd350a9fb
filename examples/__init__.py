"""Programs around Tidings: a provider stand-in, a consumer, a webhook receiver."""
