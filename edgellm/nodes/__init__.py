"""A batch on the nodes of a Ray cluster: rows go to whichever node is free, answers come back to one journal.

Four parts, each in a process of its own: `slots` beside the journal, `driver` with its `pool` and Ray itself (a child
process, because Ray ends the process that loses its cluster), and on every node a `worker` with the model. They
exchange JSON: nothing of ours is unpickled.
"""
