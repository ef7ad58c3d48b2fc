"""Ollama's API."""

from edgellm.serve.http.api import Api
from edgellm.serve.protocols.ollama import models, routes
from edgellm.serve.protocols.ollama.words import error, error_event

API = Api("ollama", [*routes.ROUTES, *models.ROUTES], ("/api/",), error, error_event)
