"""The user's documents in the server: uploaded files, the collections they are in, and answers from them."""
