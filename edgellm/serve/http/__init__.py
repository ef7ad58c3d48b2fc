"""HTTP without models: the listener, guards, responses, errors and the OpenAPI description."""
