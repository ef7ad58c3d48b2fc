"""A front over several servers of edgellm: spreads requests, keeps conversations where they are cached."""
