"""Makes the documents that follow from the code. They are committed; a test compares them with what is made."""
