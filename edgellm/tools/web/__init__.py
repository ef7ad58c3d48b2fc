"""The network, as tools see it: checked addresses, bounded downloads, pages as text, searches."""
