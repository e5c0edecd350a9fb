"""The slow-call holder: a durable, self-hosted server of the QStash wire protocol."""
