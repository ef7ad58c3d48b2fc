"""The page that browsers get, and the saved chats that it shows."""
