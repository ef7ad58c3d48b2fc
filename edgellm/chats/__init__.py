"""Chats that are saved: the database, the record of one chat, and chats as files."""
