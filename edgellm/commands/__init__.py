"""The verbs, one file each: annotated options, one service call, rendering."""
