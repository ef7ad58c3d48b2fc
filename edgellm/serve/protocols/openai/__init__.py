"""OpenAI's API: models, chat, completions, embeddings, files, vector stores."""

from edgellm.serve.http.api import Api
from edgellm.serve.protocols.openai import files, routes, vector_stores
from edgellm.serve.protocols.openai.words import error, error_event

ROUTES = [*routes.ROUTES, *files.ROUTES, *vector_stores.ROUTES]
API = Api("openai", ROUTES, ("/",), error, error_event, uploads=frozenset({files.PATH}))
