"""Anthropic's Messages API."""

from edgellm.serve.http.api import Api
from edgellm.serve.protocols.anthropic.routes import ROUTES
from edgellm.serve.protocols.anthropic.words import error, error_event

API = Api("anthropic", ROUTES, ("/v1/messages",), error, error_event)
