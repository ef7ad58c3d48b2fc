"""Tools that a model may call: what a tool is, who allows it, and the loop of calls and results."""
