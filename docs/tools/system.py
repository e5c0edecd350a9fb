"""The picture of the system: which process gives what to which, in the order of one submission."""

from __future__ import annotations

from docs.tools.drawing import Arrow, Box, Picture, Text, svg

# Columns and rows of the centres of boxes, in pixels.
A, B, C, D, E = 95, 325, 555, 785, 1005
FIRST, SECOND, THIRD = 70, 260, 400

# From a line of text above a horizontal arrow to one below it.
ASTRIDE = 26

TITLE = "The processes of Tidings and the way of one submission"
DESCRIPTION = (
    "1: a client posts a submission to the api. 2: the api inserts it into Postgres. 3: Debezium reads the insert from"
    " the WAL and writes it to Kafka. 4: the dispatcher reads it. 5: it publishes a message to the relay. 6: the relay"
    " calls the AI provider and waits for the answer. 7: it sends the answer to the api by a signed callback. The api"
    " inserts the result, and Debezium writes it to Kafka. 8: the notifier reads it and writes the completion event."
    " 9: consumers read the event. Beside this way, the watcher keeps the connector of Debezium running, and the"
    " reconciler compares what is stored with what the relay and Kafka have."
)

BOXES = (
    Box(A, FIRST, "client", "yours", "other"),
    Box(B, FIRST, "api", "REST", "ours"),
    Box(C, FIRST, "Postgres", "all that is accepted", "server"),
    Box(D, FIRST, "Kafka", "changes, events", "server"),
    Box(E, FIRST, "consumers", "yours", "other", width=130),
    Box(A, SECOND, "AI provider", "any HTTP API", "other"),
    Box(B, SECOND, "relay", "holds the slow call", "ours"),
    Box(C, SECOND, "dispatcher", "change to message", "ours"),
    Box(D, SECOND, "notifier", "change to event", "ours"),
    Box(C, THIRD, "watcher", "keeps Debezium running", "ours", width=180),
    Box(D, THIRD, "reconciler", "repeats what was lost", "ours", width=180),
)
ARROWS = (
    Arrow(((A + 75, FIRST), (B - 76, FIRST)), ("1  POST",), (210, FIRST - 8)),
    Arrow(((B + 75, FIRST), (C - 76, FIRST)), ("2  INSERT",), (440, FIRST - 8)),
    Arrow(((C + 75, FIRST), (D - 76, FIRST)), ("3  WAL", "Debezium"), (670, FIRST - 8), line_height=ASTRIDE),
    Arrow(((D - 60, FIRST + 28), (D - 60, 165), (C, 165), (C, SECOND - 29)), ("4  submission",), (640, 157)),
    Arrow(((C - 75, SECOND), (B + 76, SECOND)), ("5  publish",), (440, SECOND - 8)),
    Arrow(((B - 75, SECOND), (A + 76, SECOND)), ("6  one call", "no thread"), (210, SECOND - 8), line_height=ASTRIDE),
    Arrow(((B, SECOND - 28), (B, FIRST + 29)), ("7  signed callback",), (B - 10, 169), "end"),
    Arrow(((D, FIRST + 28), (D, SECOND - 29)), ("8", "result"), (D + 8, 150), "start"),
    Arrow(((D + 60, SECOND - 28), (D + 60, FIRST + 29)), ("completion", "event"), (D + 68, 150), "start"),
    Arrow(((D + 75, FIRST), (E - 66, FIRST)), ("9  events",), (900, FIRST - 8)),
)
TEXTS = (
    Text(20, THIRD - 12, "Blue: processes of Tidings. Grey: servers.", anchor="start"),
    Text(20, THIRD + 6, "Dashed: yours or another's.", anchor="start"),
    Text(20, THIRD + 24, "After 7, the result takes the way 2, 3.", anchor="start"),
)
PICTURE = Picture(TITLE, DESCRIPTION, 1090, 450, BOXES, ARROWS, TEXTS)


def picture() -> str:
    """Return the text of the SVG file."""
    return svg(PICTURE)
