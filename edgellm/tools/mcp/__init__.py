"""Tools of MCP servers: programs and addresses that offer tools over the Model Context Protocol."""
