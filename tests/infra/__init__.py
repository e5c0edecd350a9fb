"""The real servers that tests run on: native by default, containers with --infra=docker."""
