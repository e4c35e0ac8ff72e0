"""What is done to a document, and what it is dropped for."""
