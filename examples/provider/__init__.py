"""A stand-in for an AI provider: OpenAI's images and chat formats, real pictures, set latency and faults, no bill."""
