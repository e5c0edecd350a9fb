"""The real servers of the tests: native by default, in containers with --infra=docker."""
