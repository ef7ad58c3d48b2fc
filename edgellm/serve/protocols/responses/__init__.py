"""OpenAI's Responses API. Nothing is kept: a conversation goes on by sending what was said before."""

from edgellm.serve.http.api import Api
from edgellm.serve.protocols.openai.words import error
from edgellm.serve.protocols.responses.routes import ROUTES
from edgellm.serve.protocols.responses.words import error_event

API = Api("responses", ROUTES, ("/v1/responses",), error, error_event)
