"""What an attempt's answer means: delivered, to be tried again and when, or failed. Pure, and knows nothing of the wire's JSON."""
