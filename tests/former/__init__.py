"""Files of former versions, as these wrote them: tests open them with the present one.

`chats.sqlite3.gz` is version 1 of the chats, from the code of commit 5e41764; `smollm2.json` a model's manifest, from
that of 4bdd171, when paths were absolute and no model had several files.
"""
