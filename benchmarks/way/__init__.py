"""The whole way, from a client's submission to the message that a waiting client receives; ours and what one writes instead."""
